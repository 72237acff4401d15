"""Whether a name says that what it names is secret: of environment variables, keywords, headers, fields."""

from __future__ import annotations

import re
from typing import Final

# `OPENAI_API_KEY`, `openai-api-key`, `openaiApiKey` and `OpenAIAPIKey` end with the same words.
_WORDS: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")

# Looked for in the name's words in lower case, with `_` before, between and behind them.
_SECRET: Final = re.compile(
    r"passw(?:or)?d|passphrase|passcode|authorization|_jwt_|_secrets?_|secret_?(?:access_?)?key"
    r"|(?:api|access|secret|private)_?key"
    r"|token_(?!(?:budget|cost|count|endpoint|ids?|index|len|length|limit|max|min|per|price|probability|rate|size|text|"
    r"ttl|type|ur[il]|usage|window)_)"
    r"|_(?:access|api|auth|bearer|bot|refresh|session)_tokens_"
    r"|[a-z0-9]_keys?_(?:(?:[0-9]+|id|b_64|base_64|pem)_)?$"
    r"|(?:_|db|ftp|mail|mysql|pg|proxy|redis|root|smtp|user)pass_$|[a-z0-9]_pwd_$|(?:db|root|user)pwd_$"
    r"|auth_(?:2_)?$|_cookies?_$|_dsn_$|_pat_$|_pem_$|_credentials?_$|_creds?_$|_conn(?:ection)?_?str(?:ing)?_$"
)
# Words for what is not secret, although they end as words for secrets do.
_INNOCENT: Final = re.compile(
    r"_(?:arrow|cache|candidate|column|composite|cursor|dedup|dict|field|foreign|function|group|hash|host|idempotency|"
    r"index|input|json|lookup|map|metric|name|natural|object|output|partition|primary|public|record|registry|routing|"
    r"row|shard|shortcut|sort|translation|unique)_keys?(?=_)"
    r"|_(?:begin|bos|cls|completion|continuation|end|eos|first|input|last|mask|max|min|new|next|num|output|pad|page|"
    r"prompt|sep|special|start|stop|total|unk)_token(?=_)"
    r"|_(?:backward|by|first|forward|high|last|low|multi|one|render|second|single|two)_pass(?=_)"
    r"|_(?:disable|enable|has|needs|no|require|requires|skip|use)_o?auth(?=_)"
)
# The value says where the secret is.
_PLACE: Final = re.compile(r"_(?:dir|directory|file|filename|path|sock)_$")


def is_secret_name(name: str) -> bool:
    """Whether a keyword, header or environment variable of that name holds a secret.

    `GROQ_KEY`, `dbPass`, `Proxy-Authorization` and `SENTRY_DSN` do; `max_tokens`, `sort_key`, `author` and the path in
    `API_KEY_FILE` do not.
    """
    words = "_".join(("", *_WORDS.findall(name), "")).lower()
    return _PLACE.search(words) is None and _SECRET.search(_INNOCENT.sub("", words)) is not None
