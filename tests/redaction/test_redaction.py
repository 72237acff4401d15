import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspex_trio.observing.redaction import REDACTED, Redactor, is_secret_name, redacted
from dspex_trio.wire import encode_jsonable

SHAPED = [
    "sk-abcdefghijklmnop1234",
    "sk-ant-api03-abcdefghijklmnop_-x",
    "pk-abcdefghijklmnop1234",
    "AIzaSyA1234567890abcdefghijklmnopqrstuv",
    "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
    "hf_abcdefghijklmnopqrstuvwxyz0123456789",
    "AKIAIOSFODNN7EXAMPLE",
]


@pytest.mark.parametrize("secret", SHAPED)
@pytest.mark.parametrize("around", ["{}", "key={}", '"{}"', "({}), and more", "line\n{}\nline", "{} {}"])
def test_what_looks_like_a_providers_key_goes(secret, around):
    assert Redactor()(around.format(secret, secret)) == around.format(REDACTED, REDACTED)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Authorization: Bearer abc.def-ghi123", "Authorization: Bearer [redacted]"),
        ("authorization: bearer abcdefgh", "authorization: bearer [redacted]"),
        ("postgres://me:secret@host/db", "postgres://[redacted]@host/db"),
        ("see https://example.org:8080/path and a@b.c", "see https://example.org:8080/path and a@b.c"),
        ("a risk-taking, desk-bound task; high ghost", "a risk-taking, desk-bound task; high ghost"),
        ("sk-short", "sk-short"),
        ("the bearer of news", "the bearer of news"),
    ],
)
def test_what_belongs_to_the_shape_goes_and_the_rest_stays(text, left):
    assert Redactor()(text) == left


def test_known_secrets_go_wherever_they_occur_the_longer_one_first():
    redact = Redactor(
        ["password1", "password1-and-more", "short"], {"MY_API_KEY": "from-the-environment", "HOME": "/home/me"}
    )
    assert redact("password1-and-more password1x short from-the-environment /home/me") == (
        "[redacted] [redacted]x short [redacted] /home/me"
    )


@pytest.mark.parametrize(
    "name", ["OPENAI_API_KEY", "api-key", "HF_TOKEN", "DB_PASSWORD", "client_secret", "GOOGLE_CREDENTIALS"]
)
def test_names_that_say_secret(name):
    assert is_secret_name(name)


@given(st.text(max_size=200), st.lists(st.text(min_size=8, max_size=20), max_size=4))
def test_no_known_secret_is_left_and_a_text_without_any_is_untouched(text, secrets):
    left = Redactor(secrets)(text)
    if not any(secret in text for secret in secrets) and not re.search(r"://|earer |k-|AIza|gh._|hf_|AKIA", text):
        assert left == text
    for secret in secrets:
        if secret not in REDACTED and not any(part in REDACTED for part in (secret[:4], secret[-4:])):
            assert secret not in left


def test_a_value_is_redacted_through_and_through_and_its_keys_too():
    value = {"given": ["the-secret", 4, None], "the-secret": {"x": "a the-secret"}}
    assert redacted(value, Redactor(["the-secret"])) == {"given": [REDACTED, 4, None], REDACTED: {"x": f"a {REDACTED}"}}


AROUND = st.text(st.sampled_from('a1_- \n\t"\\\0\x1d/:@é\u2028'), max_size=4)


@given(st.lists(st.tuples(AROUND, st.sampled_from([*SHAPED, "me:pw", "a@b", "Bearer abcdefgh", "://u:p@h"]), AROUND)))
def test_json_that_passes_holds_no_secret_whatever_stands_around_it(parts):
    redact = Redactor(['odd "known"\none'])
    text = "".join(part for three in parts for part in three)
    if redact.passes(encode_jsonable({"x": [text], text: 1})):
        assert redact(text) == text


@given(AROUND, AROUND)
def test_json_with_a_known_secret_in_it_does_not_pass(before, after):
    secret = 'odd "known"\none\\\0é'
    redact = Redactor().with_secrets([secret])
    assert not redact.passes(encode_jsonable({"x": before + secret + after}))
    assert not redact.passes(encode_jsonable({before + secret + after: 1}))


@pytest.mark.parametrize(
    "text", ["a task-specific, risk-taking prompt", "see https://example.org:8080/path and a@b.c", "bearer of news"]
)
def test_json_without_secrets_passes(text):
    """Where it did not, nothing would be wrong but the time that it takes."""
    assert Redactor(["something-else", "undecodable \udce9"]).passes(encode_jsonable({"x": text}))


def test_a_redactor_with_more_secrets_takes_out_the_longest_one_first():
    redact = Redactor(["password1"]).with_secrets(["password1-and-more", "short"])
    assert redact("password1-and-more password1 short") == "[redacted] [redacted] short"
