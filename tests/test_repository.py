"""What the repository promises of itself: docs current, commands there, the lock whole, nothing leaking in."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from docs import settings_table

ROOT = Path(__file__).resolve().parent.parent
SKIPPED_FOLDERS = {".git", ".venv", "build", "dist", "node_modules", "__pycache__"}
TEXT_LIMIT = 2_000_000


def sources() -> list[Path]:
    """Return the repository's files: what git knows or would add, or, outside git, all but build output."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=False) if shutil.which("git") else None
    if listed is not None and listed.returncode == 0:
        paths = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    else:
        paths = [path for path in ROOT.rglob("*") if not SKIPPED_FOLDERS.intersection(path.relative_to(ROOT).parts)]
    return [path for path in paths if path.is_file()]


def build_sh(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([ROOT / "build.sh", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("page", sorted(settings_table.PAGES), ids=lambda page: page.name)
def test_the_settings_table_is_current(page: Path) -> None:
    assert page.read_text(encoding="utf-8") == settings_table.renewed(page), "run ./build.sh update-docs"


def test_help_names_every_command_the_docs_use() -> None:
    usage = build_sh("help").stdout
    offered = set(re.findall(r"^  ([a-z-]+)", usage, re.MULTILINE))
    pages = [path for path in sources() if path.suffix == ".md"]
    used = {word for page in pages for word in re.findall(r"\./build\.sh ([a-z-]+)", page.read_text(encoding="utf-8"))}
    assert {"demo", "test", "layer", "bench", "lint", "help"} <= offered
    assert used <= offered


def test_an_unknown_command_fails_and_says_so() -> None:
    outcome = build_sh("frobnicate")
    assert outcome.returncode == 1
    assert "no such command: frobnicate" in outcome.stderr
    assert outcome.stdout == ""


def test_every_line_of_the_lock_is_pinned_and_hashed_and_names_no_index() -> None:
    text = (ROOT / "requirements-dev.lock").read_text(encoding="utf-8")
    packages = text.replace("\\\n", " ").splitlines()
    assert len(packages) > 50
    for package in packages:
        assert re.match(r"[a-z0-9._-]+(\[[a-z0-9,_-]+\])?==\S+ ", package), package
        assert "--hash=sha256:" in package, package
    assert "://" not in text


def test_the_lock_holds_what_was_asked_for() -> None:
    locked = set(re.findall(r"^([a-z0-9._-]+)", (ROOT / "requirements-dev.lock").read_text("utf-8"), re.MULTILINE))
    lines = (ROOT / "requirements-dev.in").read_text(encoding="utf-8").splitlines()
    wanted = {re.split(r"[\[=<>~ ]", line)[0].lower() for line in lines if line and not line.startswith("#")}
    assert wanted <= locked, "run ./build.sh update-lock"


def test_the_sidecar_depends_on_nothing_and_versions_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["name"] == "lambda-backstop"
    assert project["dependencies"] == []
    init = (ROOT / "extension" / "__init__.py").read_text(encoding="utf-8")
    assert f'"{project["version"]}"' in init


@pytest.mark.parametrize("rule", ["absolute path of a home folder", "address of a package registry"])
def test_no_file_names_a(rule: str) -> None:
    patterns = {
        "absolute path of a home folder": r"/(?:root|home/[a-z]+|Users/[a-z]+)/[\w.]",
        "address of a package registry": (
            r"pypi\.org|pythonhosted\.org|npmjs\.(?:org|com)|(?:deb|snapshot|security)\.debian\.org|archive\.ubuntu\.com"
            r"|crates\.io|proxy\.golang\.org|repo1?\.maven"
        ),
    }
    found = []
    for path in sources():
        if path.stat().st_size > TEXT_LIMIT:
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(ROOT)}: {match.group()}" for match in re.finditer(patterns[rule], text)]
    assert found == []


def test_every_relative_link_of_a_page_leads_somewhere() -> None:
    broken = []
    for page in sources():
        if page.suffix != ".md":
            continue
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if "://" not in target and not (page.parent / target).exists():
                broken.append(f"{page.relative_to(ROOT)} → {target}")
    assert broken == []


def test_build_sh_and_the_ci_entry_are_executable() -> None:
    for name in ("build.sh", ".ci/run"):
        assert (ROOT / name).stat().st_mode & 0o111, name


class _Intrinsics(yaml.SafeLoader):
    """Reads CloudFormation's short forms (!Ref, !Sub, …) as {"Ref": …}."""


def _short_form(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> object:
    if isinstance(node, yaml.ScalarNode):
        return {suffix: loader.construct_scalar(node)}
    if isinstance(node, yaml.SequenceNode):
        return {suffix: loader.construct_sequence(node, deep=True)}
    assert isinstance(node, yaml.MappingNode)
    return {suffix: loader.construct_mapping(node, deep=True)}


_Intrinsics.add_multi_constructor("!", _short_form)


class Template:
    """template.yaml's resources and the statements of its role policy."""

    def __init__(self) -> None:
        loaded = yaml.load((ROOT / "template.yaml").read_text(encoding="utf-8"), Loader=_Intrinsics)
        self.resources = loaded["Resources"]
        self.policy = self.resources["FunctionPolicy"]["Properties"]["PolicyDocument"]["Statement"]


def test_the_starter_stack_allows_a_function_only_what_the_sidecar_needs() -> None:
    statements = Template().policy
    actions = [(one["Action"], one["Resource"]) for one in statements[:2]]
    assert actions == [
        ("sqs:SendMessage", {"GetAtt": "FailureQueue.Arn"}),
        ("s3:PutObject", {"Sub": "${FailureBucket.Arn}/failures/*"}),
    ]
    # Senders to a queue with a customer key need Decrypt as well as GenerateDataKey.
    condition, with_own_key, otherwise = statements[2]["If"]
    assert (condition, otherwise) == ("OwnKey", {"Ref": "AWS::NoValue"})
    assert with_own_key["Action"] == ["kms:GenerateDataKey", "kms:Decrypt"]
    assert with_own_key["Resource"] == {"Ref": "KmsKeyArn"}
    assert len(statements) == 3


def test_the_starter_stack_encrypts_without_being_asked_and_refuses_plain_http() -> None:
    resources = Template().resources
    queue = resources["FailureQueue"]["Properties"]
    assert queue["SqsManagedSseEnabled"] == {"If": ["OwnKey", {"Ref": "AWS::NoValue"}, True]}
    assert queue["MaximumMessageSize"] == 1024 * 1024
    assert queue["MessageRetentionPeriod"] == 14 * 24 * 3600
    rule = resources["FailureBucket"]["Properties"]["BucketEncryption"]["ServerSideEncryptionConfiguration"][0]
    assert rule["ServerSideEncryptionByDefault"]["SSEAlgorithm"] == {"If": ["OwnKey", "aws:kms", "AES256"]}
    assert all(resources["FailureBucket"]["Properties"]["PublicAccessBlockConfiguration"].values())
    for name in ("FailureQueuePolicy", "FailureBucketPolicy"):
        (statement,) = resources[name]["Properties"]["PolicyDocument"]["Statement"]
        assert statement["Effect"] == "Deny"
        assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


def test_the_sample_function_carries_the_layer_and_its_code_is_there() -> None:
    sample = Template().resources["SampleFunction"]["Properties"]
    assert sample["Environment"]["Variables"]["AWS_LAMBDA_EXEC_WRAPPER"] == "/opt/backstop-wrapper"
    assert sample["Environment"]["Variables"]["BACKSTOP_QUEUE_URL"] == {"Ref": "FailureQueue"}
    module, function = sample["Handler"].split(".")
    code = (ROOT / sample["CodeUri"] / f"{module}.js", ROOT / sample["CodeUri"] / f"{module}.mjs")
    assert any(f"{function}" in path.read_text(encoding="utf-8") for path in code if path.exists())
