"""Frozen settings, read and validated once. The only reader of the environment."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.errors import SettingsError
from app.rights import ROLES
from app.sealing import Keyring

_ORIGIN = re.compile(r"https?://(\*\.)?[A-Za-z0-9.-]+(:\d{1,5})?|https?://\[[0-9A-Fa-f:]+\](:\d{1,5})?")
_BROKERS = re.compile(r"kafka://[^\s,/@]+:\d{1,5}(,[^\s,/@]+:\d{1,5})*")


class Settings(BaseSettings):
    """Every setting is an environment variable ``DUTING_<NAME>``, or a line in the file ``.env``."""

    model_config = SettingsConfigDict(
        env_prefix="DUTING_", env_file=".env", frozen=True, extra="ignore", env_ignore_empty=True
    )

    host: str = "127.0.0.1"
    port: int = Field(default=8420, ge=0, le=65535, description="0 takes a free port")
    data_dir: Path = Field(default=Path("var"), description="database, recordings, generated secrets")
    database_url: str | None = Field(default=None, description="SQLAlchemy URL; SQLite in data_dir if unset")
    redis_url: str | None = Field(
        default=None, description="events and live state shared by several gateways; in process if unset"
    )
    kafka_url: str | None = Field(
        default=None, description="kafka://host:port,host:port: recognition and rules in workers of their own"
    )
    rules: Path | None = Field(
        default=None, description="rule pack (YAML), or a folder of packs; the built-in bank.zh if unset"
    )
    rules_poll_s: float = Field(
        default=2, ge=0, le=3600, description="seconds between two looks at the rule pack; 0: never"
    )

    emotion_model: Path | None = Field(
        default=None, description="learned judge of voices (ONNX, benchmarks.emotion_train); a rule if unset"
    )

    kafka_partitions: int = Field(
        default=12, ge=1, le=10_000, description="of each topic when it is made: the most workers of a kind"
    )
    kafka_replication: int = Field(default=1, ge=1, le=9, description="copies of each topic when it is made")
    worker_port: int = Field(
        default=8421, ge=0, le=65535, description="health and metrics of `duting worker`; 0 takes a free port"
    )

    model: str = Field(default="base", description="name known to `duting models`, or a folder")
    models_dir: Path = Path("models")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    compute_type: str = Field(
        default="default", description="int8 on a CPU, int8_float16 on a GPU if default"
    )
    workers: int | None = Field(
        default=None, ge=1, le=64, description="model workers; by the machine if unset"
    )
    threads_per_worker: int | None = Field(default=None, ge=1, le=64)

    ingest_token: SecretStr | None = Field(
        default=None, description="what telephony must present; generated into data_dir if unset"
    )
    metrics_token: SecretStr | None = Field(
        default=None, description="what Prometheus on another machine presents at /metrics (Bearer)"
    )
    audiohook_secret: SecretStr | None = Field(
        default=None, description="client secret of Genesys AudioHook (base64): its requests must be signed"
    )
    audiosocket_port: int | None = Field(
        default=None, ge=0, le=65535, description="of Asterisk's AudioSocket (TCP); not served if unset"
    )
    max_calls: int = Field(default=500, ge=1)
    keep_audio: bool = True
    opus_after_s: float = Field(
        default=900, ge=0, le=604_800, description="seconds until an ended call's recording becomes Opus"
    )
    escalate_critical_s: float = Field(
        default=30, ge=0, le=86_400, description="seconds until a critical alert that nobody took escalates"
    )
    escalate_warning_s: float = Field(default=120, ge=0, le=86_400, description="the same; 0: never")
    escalate_info_s: float = Field(default=0, ge=0, le=86_400, description="the same; 0: never")
    pii_keys: SecretStr | None = Field(
        default=None,
        description="32 bytes in base64 each, several behind commas: the first seals what was masked, all "
        "open it; nothing of it is kept if unset",
    )
    takeover_url: str | None = Field(
        default=None, description="https address that is asked to hand a call over; nobody is if unset"
    )
    takeover_secret: SecretStr | None = Field(
        default=None, min_length=16, description="signs those requests (HMAC-SHA-256)"
    )
    session_hours: int = Field(default=12, ge=1, le=720)
    oidc_issuer: str | None = Field(
        default=None,
        description="identity provider (OpenID Connect) to log in with; none if unset",
    )
    oidc_client_id: str | None = None
    oidc_client_secret: SecretStr | None = Field(default=None, description="of a confidential client")
    oidc_redirect_url: str | None = Field(
        default=None, description="https://HERE/api/session/oidc/callback, as the provider knows it"
    )
    oidc_label: str = Field(default="SSO", description="what the button says")
    oidc_scopes: str = "openid profile"
    oidc_username_claim: str = "preferred_username"
    oidc_name_claim: str = "name"
    oidc_roles_claim: str = "groups"
    oidc_roles: dict[str, str] = Field(
        default={}, description='{"group there": "supervisor", …}; the first that somebody has counts'
    )
    oidc_teams_claim: str | None = Field(default=None, description="the role's usual teams if unset")
    oidc_teams: dict[str, str] = Field(
        default={}, description='{"group there": "team here", …}; the claim\'s own values if unset'
    )
    desk_frames: str = Field(
        default="", description="origins whose pages may show the agent's desk in a frame, behind spaces"
    )
    appeal_hours: float = Field(
        default=72, ge=0, le=8_760, description="after a call, in which its agent may appeal; 0: never"
    )
    secure_cookies: bool = Field(default=False, description="set it behind HTTPS")
    events_kept: int = Field(default=200_000, ge=1000, description="events a browser can resume over")
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_json: bool = False

    @model_validator(mode="after")
    def _known_scheme(self) -> Settings:
        url = self.database_url
        if url is not None and not url.startswith(("sqlite:", "postgresql")):
            raise ValueError("DUTING_DATABASE_URL must start with sqlite: or postgresql")
        if self.redis_url is not None and not self.redis_url.startswith(("redis://", "rediss://")):
            raise ValueError("DUTING_REDIS_URL must start with redis:// or rediss://")
        self._check_oidc()
        self._check_takeover()
        Keyring.of(self.pii_keys)
        if wrong := [origin for origin in self.frame_origins if not _ORIGIN.fullmatch(origin)]:
            raise ValueError(
                f"DUTING_DESK_FRAMES: expected origins such as https://phone.bank.example, came {wrong[0]!r}"
            )
        if self.kafka_url is None:
            return self
        if not _BROKERS.fullmatch(self.kafka_url):
            raise ValueError("DUTING_KAFKA_URL must be kafka://host:port, further brokers behind commas")
        if self.redis_url is None or url is None or not url.startswith("postgresql"):
            raise ValueError(
                "DUTING_KAFKA_URL makes a cluster: it needs DUTING_REDIS_URL and a DUTING_DATABASE_URL that "
                "starts with postgresql, which all gateways share"
            )
        return self

    def _check_takeover(self) -> None:
        if self.takeover_url is None:
            return
        if not is_safe_url(self.takeover_url):
            raise ValueError("DUTING_TAKEOVER_URL must start with https://")
        if self.takeover_secret is None:
            raise ValueError("DUTING_TAKEOVER_URL needs DUTING_TAKEOVER_SECRET, which signs what is sent")

    def _check_oidc(self) -> None:
        if self.oidc_issuer is None:
            return
        if self.oidc_client_id is None or self.oidc_redirect_url is None or not self.oidc_roles:
            raise ValueError(
                "DUTING_OIDC_ISSUER needs DUTING_OIDC_CLIENT_ID, DUTING_OIDC_REDIRECT_URL, DUTING_OIDC_ROLES"
            )
        if unknown := [role for role in self.oidc_roles.values() if role not in ROLES]:
            raise ValueError(
                f"DUTING_OIDC_ROLES: there is no role {unknown[0]!r}; expected {', '.join(ROLES)}"
            )
        if not is_safe_url(self.oidc_issuer):
            raise ValueError("DUTING_OIDC_ISSUER must start with https://")

    @property
    def brokers(self) -> tuple[str, ...]:
        """``host:port`` of each Kafka broker to begin with; empty without a cluster."""
        return tuple((self.kafka_url or "").removeprefix("kafka://").split(",")) if self.kafka_url else ()

    @property
    def frame_origins(self) -> tuple[str, ...]:
        """Whose pages may show the desk in a frame."""
        return tuple(self.desk_frames.split())

    @property
    def database(self) -> str:
        """The SQLAlchemy URL in force."""
        return self.database_url or f"sqlite:///{(self.data_dir / 'duting.db').absolute()}"

    @property
    def max_connections(self) -> int:
        """At once, over HTTP and WebSocket: two for each call, and people who watch."""
        return 2 * self.max_calls + 2_000

    @property
    def recordings(self) -> Path:
        return self.data_dir / "recordings"

    def token(self) -> str:
        """The ingest token: the one set, or one made once and kept in ``data_dir`` for its owner only."""
        if self.ingest_token is not None:
            return self.ingest_token.get_secret_value()
        path = self.data_dir / "ingest.token"
        if not path.exists():
            self.data_dir.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)
            path.write_text(secrets.token_urlsafe(24))
        return path.read_text().strip()


def load(**overrides: object) -> Settings:
    """Read the environment once; raises ``SettingsError`` that names every wrong variable."""
    try:
        return Settings(**{key: value for key, value in overrides.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        lines = [
            f"DUTING_{'_'.join(str(part) for part in item['loc']).upper()}: {item['msg']}"
            # Without the value: it may be a secret.
            for item in error.errors(include_url=False, include_input=False)
        ]
        raise SettingsError("the settings are not valid:\n  " + "\n  ".join(lines)) from None


def prepare_processor() -> None:
    """Let CTranslate2 use what the processor has; call before the model is loaded.

    It stops at AVX2 and multiplies unpacked weights unless told otherwise (``CT2_FORCE_CPU_ISA``,
    ``CT2_USE_EXPERIMENTAL_PACKED_GEMM``; OpenNMT/CTranslate2, docs/environment_variables.md). With AVX-512
    its conversions and activations, a quarter of the encoder's time, take half as long; packing saves a
    tenth of all, where Intel's library does the products. A setting of the operator's own wins.
    """
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text(errors="replace") if cpuinfo.exists() else ""
    if "avx512vl" in text:
        os.environ.setdefault("CT2_FORCE_CPU_ISA", "AVX512")
    if "GenuineIntel" in text:
        os.environ.setdefault("CT2_USE_EXPERIMENTAL_PACKED_GEMM", "1")


def is_safe_url(url: str) -> bool:
    """Over TLS, or on this machine (tests, a proxy beside us)."""
    parts = urlsplit(url)
    return parts.scheme == "https" or (
        parts.scheme == "http" and parts.hostname in ("127.0.0.1", "::1", "localhost")
    )


def for_a_child() -> dict[str, str]:
    """The environment of a process that needs none of the settings, and no secret of ours."""
    return {name: value for name, value in os.environ.items() if not name.startswith("DUTING_")}
