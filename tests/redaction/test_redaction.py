import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspex_trio.redaction import REDACTED, Redactor, is_secret_name, redacted

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
