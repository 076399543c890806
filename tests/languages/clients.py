"""The six runtime clients under test, each with the function that was built for it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.harness.roots import BaseRoot, bash_root
from tests.e2e.harness.sandbox import Function
from tests.languages.build import built
from tests.languages.recipes import FUNCTIONS


@dataclass(frozen=True, slots=True)
class Client:
    """A runtime client: its language (the name of its folder in functions/), its package and where that one's version is pinned."""

    language: str
    title: str
    package: str
    pinned: tuple[str, str]
    handler: str
    # Beyond this no invocation goes; a start after a reset counts against it.
    timeout_s: int = 3
    quick: bool = False

    @property
    def version(self) -> str:
        """The package's version as pinned; an empty text for a client of our own."""
        file, pattern = self.pinned
        if not file:
            return ""
        match = re.search(pattern, (FUNCTIONS / self.language / file).read_text(encoding="utf-8"))
        if match is None:
            raise ValueError(f"{file} pins no {self.package}")
        return match.group(1)

    def function(
        self, layer: Path | None, environment: Mapping[str, str], *, concurrency: int | None = None
    ) -> Function:
        """The built function, deployed with `layer` and `environment`. Raises NotBuilt."""
        folder = built(self.language)
        runtime = folder / "runtime"
        return Function(
            root=BaseRoot(bash_root().path, (f"ro:{folder / 'lang'}:/var/lang",)),
            task=folder / "task",
            runtime=runtime if any(runtime.iterdir()) else None,
            layer=layer,
            environment={"AWS_LAMBDA_FUNCTION_HANDLER": self.handler, **environment},
            timeout_s=self.timeout_s,
            concurrency=concurrency,
        )


_JAVA_PACKAGE = "aws-lambda-java-runtime-interface-client"
_JAVA_PIN = rf"{_JAVA_PACKAGE}-([\d.]+)\.jar"

CLIENTS = (
    Client(
        "python", "Python", "awslambdaric", ("requirements.txt", r"awslambdaric==(\S+)"), "function.handler", quick=True
    ),
    Client("node", "Node.js", "aws-lambda-ric", ("package.json", r'"aws-lambda-ric": "(.+)"'), "index.handler"),
    Client("java", "Java", _JAVA_PACKAGE, ("jars.sha256", _JAVA_PIN), "backstop.Handler", timeout_s=6),
    Client("go", "Go", "aws-lambda-go", ("go.mod", r"aws-lambda-go v(\S+)"), "app"),
    Client("rust", "Rust", "lambda_runtime", ("Cargo.toml", r'lambda_runtime = .*"=([\d.]+)"'), "app"),
    Client("bash", "bash", "our sample's bootstrap, with curl", ("", ""), "handler", quick=True),
)
