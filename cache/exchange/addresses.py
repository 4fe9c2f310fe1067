"""How addresses of spaces are written, and how they are shown: an address enters, what may be printed of it leaves.

Libraries of file systems are not needed for it, so that whoever names an address need not load them.
"""

import os
import re
from urllib.parse import unquote

TAR = ".tar"
WEB = ("http", "https")
LINK = re.compile(r"(?P<protocol>[^:/?#]+)://(?:(?P<user>[^/?#]*)@)?(?P<path>[^?#]*)(?P<query>.*)", re.DOTALL)
"""One link of an address: `https`, `user:password`, a host and a path, and what a signed one has behind them."""
URL = re.compile(r"https?://[^\s'\"<>]+")
SECRETIVE = re.compile(r"SECRET|TOKEN|PASSW|CREDENTIAL|KEY|CONNECTION_STRING", re.IGNORECASE)
"""Names of environment variables whose values no message shows."""
LEAST_SECRET = 6
"""Characters of such a value: shorter ones occur in any text by chance."""
HIDDEN = "…"


def is_elsewhere(address: str) -> bool:
    """Say whether `address` is a tar file or one of fsspec's, and no folder."""
    return "://" in address or address.endswith(TAR)


def is_tar(address: str) -> bool:
    """Say whether an address is that of a tar file; one of a web server may be signed behind its path."""
    return shown(address).endswith(TAR)


def protocols(address: str) -> tuple[str, ...]:
    """Return the names before `://` in an address, outermost first; fsspec chains several by `::`."""
    return tuple(match["protocol"] for match in map(LINK.fullmatch, address.split("::")) if match)


def of_the_web(address: str) -> bool:
    """Say whether an address is one of a web server, which gives single files and lists none."""
    return protocols(address)[:1] in {(name,) for name in WEB}


def shown(address: str) -> str:
    """Return an address without what proves who asks: its password, and of a web server user and query as well."""
    return "::".join(map(_shown_link, address.split("::")))


def without_secrets(text: str, address: str) -> str:
    """Return what a library says, without secrets of the address or of the environment, should it repeat them."""
    text = URL.sub(lambda match: _shown_link(match[0]), text)
    secrets = {secret for link in address.split("::") for secret in _secrets_of(link)}
    secrets |= {value for name, value in os.environ.items() if SECRETIVE.search(name)}
    secrets |= {unquote(secret) for secret in secrets}
    for secret in sorted((secret for secret in secrets if len(secret) >= LEAST_SECRET), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return text


def _shown_link(link: str) -> str:
    match = LINK.fullmatch(link)
    if match is None:
        return link
    if match["protocol"] in WEB:
        return f"{match['protocol']}://{match['path']}"
    user = "" if match["user"] is None else match["user"].partition(":")[0] + "@"
    return f"{match['protocol']}://{user}{match['path']}{match['query']}"


def _secrets_of(link: str) -> set[str]:
    match = LINK.fullmatch(link)
    if match is None:
        return set()
    user, query = match["user"] or "", match["query"]
    of_the_web = {user, query[1:], *(field.partition("=")[2] for field in query[1:].split("&"))}
    return {user.partition(":")[2], *(of_the_web if match["protocol"] in WEB else ())}
