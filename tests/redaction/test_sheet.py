"""The sheet of names and shapes: what is a secret, and what is not."""

import base64

import pytest

from dspex_trio.observing.redaction import REDACTED, Redactor, is_secret_name, secrets_in
from dspex_trio.wire import encode_jsonable

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV_adQssw5c"
PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA1234567890\nabcd+/==\n-----END RSA PRIVATE KEY-----"
BASIC = base64.b64encode(b"user:password").decode()

KEYS = [
    f"sk-{LETTERS}",
    f"sk-proj-{LETTERS}",
    f"xai-{LETTERS}",
    f"nvapi-{LETTERS}",
    f"sk_live_{LETTERS}",
    f"whsec_{LETTERS}",
    f"gsk_{LETTERS}",
    f"r8_{LETTERS}",
    f"lsv2_pt_{'0123456789abcdef' * 2}_0123456789",
    f"dapi{'0123456789abcdef' * 2}",
    f"AIzaSy{LETTERS}",
    f"ya29.{LETTERS}",
    f"GOCSPX-{LETTERS}",
    "AKIAIOSFODNN7EXAMPLE",
    "ASIAIOSFODNN7EXAMPLE",
    *(f"gh{letter}_{LETTERS}" for letter in "pousr"),
    f"github_pat_11ABCDEFG0abcdefghijkl_{LETTERS}",
    "glpat-abcdefghij0123456789",
    "glpat-abcdefghij0123456789.01.0a1b2c3d4",
    "xoxb-1234567890-abcdefghij",
    "xoxp-1234567890-abcdefghij",
    "xapp-1-A0123456789-abcdef",
    f"SG.{LETTERS[:22]}.{LETTERS}",
    f"npm_{LETTERS}",
    f"shpat_{'0123456789abcdef' * 2}",
    f"hf_{LETTERS}",
    JWT,
    PEM,
]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize(
    "around", ["{}", "key={}", '"{}"', "({}), and more", "line\n{}\nline", "{} {}", "{}: said", "x\t{}"]
)
def test_a_key_goes_whatever_stands_around_it(key, around):
    text = around.format(key, key)
    assert Redactor()(text) == around.format(REDACTED, REDACTED)
    assert not Redactor().passes(encode_jsonable({"x": text}))


@pytest.mark.parametrize("key", KEYS)
def test_a_key_goes_out_of_json_text_in_which_it_stands_behind_an_escape(key):
    r"""Prompts are kept as JSON text: `\nsk-…` is a key at the start of a line, not one inside of a word."""
    for before in ("\n", "\t", "\x1b", "\x0b"):
        text = encode_jsonable({"content": f"line{before}{key}"}).decode()
        assert key not in Redactor()(text)
        assert REDACTED in Redactor()(text)
        assert REDACTED in Redactor()(repr(f"line{before}{key}"))


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (f"Basic {BASIC} x", f"Basic {REDACTED} x"),
        (f"basic {BASIC.rstrip('=')}", f"basic {REDACTED}"),
        ("Bearer abc123def", f"Bearer {REDACTED}"),
        ("Bearer " + "a" * 30, f"Bearer {REDACTED}"),
        ("Authorization: Bearer abcdefgh", f"Authorization: Bearer {REDACTED}"),
        ("authorization='Token abc12345678'", f"authorization='Token {REDACTED}'"),
        ('{"Authorization": "opaque-credential-1"}', f'{{"Authorization": "{REDACTED}"}}'),
        ("(b'authorization', b'Basic abcdefgh')", f"(b'authorization', b'Basic {REDACTED}')"),
        ("Cookie: session=abcdef; id=1234", f"Cookie: {REDACTED}"),
        ("x-api-key: abcd1234", f"x-api-key: {REDACTED}"),
        ("'X-Api-Key': 'abcd1234'", f"'X-Api-Key': '{REDACTED}'"),
        ("postgres://me:pa@ss@host/db", f"postgres://{REDACTED}@host/db"),
        ("redis://:password@host", f"redis://{REDACTED}@host"),
        ("https://0123456789abcdef0123456789abcdef@sentry.io/1", f"https://{REDACTED}@sentry.io/1"),
        ("host=h user=u password=hunter22 dbname=x", f"host=h user=u password={REDACTED} dbname=x"),
        ("Server=s;Uid=me;Pwd=hunter22;", f"Server=s;Uid=me;Pwd={REDACTED};"),
        ("AccountName=a;AccountKey=abc+/123==;", f"AccountName=a;AccountKey={REDACTED};"),
        ("https://x.org/a?q=1&api_key=abcdefgh&b=2", f"https://x.org/a?q=1&api_key={REDACTED}&b=2"),
        ("https://x.org/a?key=abcdefgh", f"https://x.org/a?key={REDACTED}"),
        ("https://hooks.slack.com/services/T01/B01/abcdefghijkl", f"https://hooks.slack.com/services/{REDACTED}"),
    ],
)
def test_what_stands_behind_its_word_goes(text, left):
    assert Redactor()(text) == left
    assert not Redactor().passes(encode_jsonable({"x": text}))
    assert Redactor()(left) == left


@pytest.mark.parametrize(
    "text",
    [
        "a risk-taking, desk-bound monkey-puzzle; the keyboard, the passage, the author",
        "Basic understanding of Basic JavaScript, Basic questions, basic arithmetic",
        "bearer authentication; a bearer of certificates; Bearer token",
        "Authorization: required. Authorization is by role",
        "the cookie: sweet; Cookie policy",
        "total_tokens=1234567890, max_tokens=100000, cache_key=abcdefghi",
        "connect(host=h, password=password, api_key=None, token=get_token())",
        "    password=self.password",
        'see "http://localhost:8080", "me@example.org" and https://example.org:8080/a?b=c',
        "git@github.com:owner/repository.git, ssh://git@github.com/owner/repository",
        "it begins with -----BEGIN PRIVATE KEY----- and so on",
        "-----BEGIN CERTIFICATE-----\nMIIEpAIBAAKCAQEA1234567890\n-----END CERTIFICATE-----",
        "PWD=/home/somebody/project",
        "eyJ is how a token begins; gsk_ and xoxb- too",
        "a desk_live_abcdefghijklmnop, unghp_abcdefghijklmnopqrstuvwxyz0123456789",
    ],
)
def test_ordinary_text_stays(text):
    assert Redactor()(text) == text


@pytest.mark.parametrize(
    "name",
    [
        *("GROQ_KEY", "DB_PASS", "REDIS_AUTH", "JWT", "SERVICE_JWT", "COOKIE", "Set-Cookie", "SENTRY_DSN", "MY_TOKEN"),
        *("apiKey", "OpenAIAPIKey", "APIKEY", "X-API-Key", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "PGPASSWORD"),
        *("SECRET_KEY_BASE", "GITHUB_PAT", "DBPASS", "ADMIN_PWD", "NPM_CONFIG__auth", "HTTP_AUTHORIZATION"),
        *("GOOGLE_API_KEY_2", "TOKEN_GITHUB", "client-secret", "SSH_PRIVATE_KEY", "AzureConnectionString"),
    ],
)
def test_a_name_that_says_secret(name):
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name",
    [
        *("monkey", "keyboard", "KEYBOARD_LAYOUT", "hotkey", "passage", "compass", "bypass", "first_pass", "author"),
        *("total_tokens", "max_tokens", "prompt_tokens", "token_count", "eos_token", "tokenizer", "key", "keys"),
        *("TOKENIZERS_PARALLELISM", "PWD", "OLDPWD", "SSH_AUTH_SOCK", "XAUTHORITY", "AUTH_TYPE", "secretary"),
        *("sort_key", "primary_key", "cache_key", "public_key", "API_KEY_FILE", "password_file", ""),
    ],
)
def test_a_name_that_does_not(name):
    assert not is_secret_name(name)


def test_a_password_in_a_url_of_the_environment_is_known_also_when_it_stands_alone():
    redact = Redactor([], {"DATABASE_URL": "postgres://me:p%40ssword9@host/db", "PAGE": "https://example.org"})
    assert redact("refused: p@ssword9 and p%40ssword9 on example.org") == (
        f"refused: {REDACTED} and {REDACTED} on example.org"
    )


def test_a_switch_with_the_name_of_a_secret_takes_no_word_out_of_messages():
    assert Redactor([], {"BASIC_AUTH": "required", "X_AUTH": "disabled"})("a field is required or disabled") == (
        "a field is required or disabled"
    )


def test_a_known_secret_goes_out_of_json_text_and_urls_in_which_it_is_spelled_otherwise():
    secret = 'line one\n"two" & three'
    redact = Redactor([secret])
    assert redact(encode_jsonable([secret]).decode()) == f'["{REDACTED}"]'
    assert redact("?q=line%20one%0A%22two%22%20%26%20three") == f"?q={REDACTED}"


def test_secrets_are_found_in_lists_and_below_them():
    found = secrets_in({"api_keys": ["first-one", "second"], "servers": [{"password": "third-one"}], "max_tokens": "9"})
    assert list(found) == ["first-one", "second", "third-one"]
