"""Every knob: where it comes from, what it refuses, and what it says then."""

import base64
from pathlib import Path

import pytest

from app.settings import LOOPBACK, PREFIX, SECRETS, Settings, SettingsError, load, unknown_variables

KEY = "slk_0123456789abcdefghijklmnop"


@pytest.fixture
def env(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    return monkeypatch


def source_of(name: str, **options: object) -> str:
    return next(knob.source for knob in load(**options).describe() if knob.name == name)


def refusal(**options: object) -> str:
    with pytest.raises(SettingsError) as caught:
        load(**options)
    return str(caught.value)


def test_without_settings_it_is_open_on_loopback_only() -> None:
    settings = load()
    assert (settings.host, settings.port) == ("127.0.0.1", 8080)
    assert not settings.auth_required
    assert settings.egress == ("127.0.0.0/8", "::1/128")
    assert settings.data_dir == Path(".sluice")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "sluice.example.com"])
def test_beyond_loopback_keys_are_needed_and_loopback_is_closed(host: str) -> None:
    settings = load(host=host)
    assert settings.auth_required
    assert settings.egress == ()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.2", "::1"])
def test_loopback_has_many_names(host: str) -> None:
    assert not load(host=host, auth="off").auth_required


def test_a_bootstrap_key_turns_authentication_on() -> None:
    assert load(bootstrap_key=KEY).auth_required


def test_each_value_tells_its_source(env: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert source_of("port") == "default"
    env.setenv("SLUICE_PORT", "")
    assert source_of("port") == "default"
    env.setenv("SLUICE_PORT", "9000")
    assert source_of("port") == "env"
    assert source_of("port", port=1) == "option"
    assert load(port=1).port == 1
    (tmp_path / "key").write_text(KEY + "\n")
    env.setenv("SLUICE_BOOTSTRAP_KEY_FILE", str(tmp_path / "key"))
    assert source_of("bootstrap_key") == "file"
    loaded = load().bootstrap_key
    assert loaded is not None and loaded.get_secret_value() == KEY


@pytest.mark.parametrize(
    "url",
    [
        "postgres://user:hidden@db/sluice?sslmode=require",
        "postgresql:///sluice?host=/run&user=u&password=hidden",
    ],
)
def test_no_secret_is_shown(url: str, env: pytest.MonkeyPatch) -> None:
    env.setenv("SLUICE_DATABASE_URL", url)
    settings = load(bootstrap_key=KEY, encryption_key=base64.b64encode(b"0" * 32).decode())
    shown = " ".join(str(knob.value) for knob in settings.describe()) + repr(settings)
    for secret in ("hidden", "hid", "den@", KEY, "MDAw"):
        assert secret not in shown


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_that_is_refused_is_not_repeated(name: str) -> None:
    said = refusal(**{name: "what-is-this"})
    assert said.startswith(PREFIX + name.upper() + ": ")
    assert "what-is-this" not in said


@pytest.mark.parametrize("password", ["hid/den", "hid@den", "hid?den", "hid:den@"])
def test_a_password_that_needs_escapes_is_refused_and_not_repeated(password: str) -> None:
    said = refusal(database_url=f"postgresql://user:{password}@db:5432/sluice")
    assert said.startswith("SLUICE_DATABASE_URL: ")
    assert "hid" not in said and "den" not in said


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("SLUICE_LEASE_SECONDS", "3", "SLUICE_LEASE_SECONDS=3: input should be greater than or equal to 5."),
        ("SLUICE_PORT", "tcp://10.0.0.1:8080", "enableServiceLinks: false"),
        ("SLUICE_SQS_PORT", "tcp://10.0.0.1:9324", "a service named sluice-sqs"),
        ("SLUICE_PORT", "70000", "less than or equal to 65535"),
        ("SLUICE_ROLE", "worker", "'all', 'api' or 'engine'"),
        ("SLUICE_PUBLIC_URL", "ftp://x", "http or https"),
        ("SLUICE_PUBLIC_URL", "sluice.example.com", "http or https"),
        ("SLUICE_DATABASE_URL", "mysql://x", "postgres:// or postgresql://"),
        (
            "SLUICE_DATABASE_URL",
            "postgresql://x?sslmod=require",
            "'sslmod' is not a libpq parameter: did you mean sslmode?",
        ),
        ("SLUICE_DATABASE_DIRECT_URL", "jdbc:postgresql://x", "postgres:// or postgresql://"),
        ("SLUICE_BOOTSTRAP_KEY", "secret", "slk_"),
        ("SLUICE_ENCRYPTION_KEY", "c2hvcnQ=", "openssl rand -base64 32"),
        ("SLUICE_EGRESS_ALLOW", "10.0.0.1/8", "has host bits set"),
        ("SLUICE_EGRESS_ALLOW", "hooks.internal,10.0.0.0/33", "neither a network"),
        ("SLUICE_BOOTSTRAP_KEY_FILE", "/nowhere", "SLUICE_BOOTSTRAP_KEY_FILE=/nowhere cannot be read"),
    ],
)
def test_what_is_out_of_bounds_is_refused_in_plain_words(
    env: pytest.MonkeyPatch, variable: str, value: str, says: str
) -> None:
    env.setenv(variable, value)
    assert says in refusal()


def test_all_faults_are_told_at_once() -> None:
    said = refusal(port=-1, lease_seconds=1)
    assert "SLUICE_PORT=-1" in said and "SLUICE_LEASE_SECONDS=1" in said


def test_contradictions_say_what_to_do(env: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert "listen on 127.0.0.1" in refusal(host="0.0.0.0", auth="off")
    assert "leave one of the two out" in refusal(auth="off", bootstrap_key=KEY)
    assert "set SLUICE_DATABASE_URL, or use the role all" in refusal(role="engine")
    assert "set SLUICE_DATABASE_URL to the pooler's address" in refusal(database_direct_url="postgresql://db/sluice")
    (tmp_path / "key").write_text(KEY)
    env.setenv("SLUICE_BOOTSTRAP_KEY", KEY)
    env.setenv("SLUICE_BOOTSTRAP_KEY_FILE", str(tmp_path / "key"))
    assert "set one of the two" in refusal()


def test_loopback_may_be_called_by_default_only_by_a_replica_bound_to_it() -> None:
    for given in ({}, {"bootstrap_key": KEY}, {"auth": "on"}, {"host": "localhost"}):
        assert load(**given).egress == LOOPBACK, given
        assert load(**given, egress_allow="none").egress == ()
    for host in ("10.0.0.7", "0.0.0.0"):
        assert load(host=host, bootstrap_key=KEY).egress == ()
        assert load(host=host, bootstrap_key=KEY, egress_allow="127.0.0.0/8").egress == ("127.0.0.0/8",)


def test_a_bootstrap_key_is_long_enough_not_to_be_guessed() -> None:
    assert "slk_ and 24 to 196" in refusal(bootstrap_key="slk_" + "a" * 23)
    assert load(bootstrap_key="slk_" + "a" * 24).auth_required


def test_egress_is_a_list_or_none(env: pytest.MonkeyPatch) -> None:
    env.setenv("SLUICE_EGRESS_ALLOW", "10.0.0.0/8, hooks.internal ,fd00::/8")
    assert load().egress == ("10.0.0.0/8", "hooks.internal", "fd00::/8")
    env.setenv("SLUICE_EGRESS_ALLOW", "none")
    assert load().egress == ()


def test_a_mistyped_variable_is_noticed_and_a_foreign_one_is_not() -> None:
    environment = {
        "SLUICE_LEASE_SECOND": "1",
        "SLUICE_PORT_8080_TCP": "tcp://",
        "SLUICE_SERVICE_HOST": "x",
        "SLUICE_SQS_SERVICE_HOST": "x",
        "SLUICE_SQS_PORT_9324_TCP": "tcp://",
        "PATH": "/",
    }
    assert unknown_variables(environment) == [
        "SLUICE_LEASE_SECOND is not a setting, did you mean SLUICE_LEASE_SECONDS?"
    ]


def test_every_knob_says_why_it_is_there() -> None:
    assert all(field.description and field.description.endswith(".") for field in Settings.model_fields.values())
