"""The JSON schema of the configuration, read by a validator that is not ours.

`sentry-mirror schema` must be a schema, allow the example and every configuration in the documents, and
refuse keys that do not exist. YAML is read by its version 1.2 here, as editors read it: `off` is a text.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import yaml


class Yaml12(yaml.SafeLoader):
    """Only true and false are booleans."""


Yaml12.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Yaml12.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(true|false)$"), list("tf"))


def blocks(path: Path) -> list[str]:
    """The whole configurations in a document."""
    found = re.findall(r"^```yaml\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE)
    return [block for block in found if re.search("^keys:", block, re.MULTILINE)]


def main() -> None:
    binary, root = sys.argv[1], Path(sys.argv[2])
    printed = subprocess.run([binary, "schema"], check=True, capture_output=True, text=True)
    schema = json.loads(printed.stdout)
    jsonschema.Draft7Validator.check_schema(schema)
    validator = jsonschema.Draft7Validator(schema)
    example = (root / "config.example.yml").read_text()
    documents = [root / "README.md", *sorted((root / "docs").glob("*.md"))]
    configurations = [example, *(block for path in documents for block in blocks(path))]
    assert len(configurations) >= 3, f"only {len(configurations)} configurations were found"
    for text in configurations:
        problems = [error.message for error in validator.iter_errors(yaml.load(text, Yaml12))]
        assert not problems, f"{problems} in\n{text}"
    for wrong in [
        "prot: 1", "limits: {body_byte: 1}", "port: 70000", "driver: kqueue", "reply_timeout: 5",
        "limits: {body_bytes: 5 pounds}", "timeouts: {head: 10 s, body: 1x}", "reuse_port: perhaps",
    ]:
        value = yaml.load(example, Yaml12) | yaml.load(wrong, Yaml12)
        assert not validator.is_valid(value), f"{wrong} is allowed"
    for right in ["port: '${PORT}'", "limits: {body_bytes: 5 MiB}", "admin: off", "tls:"]:
        value = yaml.load(example, Yaml12) | yaml.load(right, Yaml12)
        assert validator.is_valid(value), f"{right} is not allowed"
    print(f"ok: the schema allows {len(configurations)} configurations, and no unknown keys")


if __name__ == "__main__":
    main()
