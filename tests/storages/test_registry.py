from __future__ import annotations

import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from configparser import ConfigParser
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from sa_attachments.errors import BadConfiguration, MissingExtra, UnknownStorage
from sa_attachments.storages import registry
from sa_attachments.storages.database import DatabaseStorage
from sa_attachments.storages.local import LocalStorage
from sa_attachments.storages.memory import MemoryStorage
from sa_attachments.storages.registry import Registry
from sa_attachments.storages.url import StorageURL
from sa_attachments.testing.probes import listed, put


def unknown(storages: Registry, name: str | None) -> str:
    with pytest.raises(UnknownStorage) as raised:
        storages.real(name)
    assert isinstance(raised.value, LookupError)
    return str(raised.value)


# Names and values


def test_one_url_is_the_default() -> None:
    storages = Registry("memory:")
    assert storages.names() == ["default"]
    assert storages.real(None) == storages.real("default") == "default"
    assert isinstance(storages.resolve(None), MemoryStorage)


def test_one_storage_is_the_default() -> None:
    storage = MemoryStorage()
    assert Registry(storage).resolve() is storage


def test_values_are_urls_storages_and_other_names(tmp_path: Path) -> None:
    storage = MemoryStorage()
    storages = Registry({"default": f"local:{tmp_path}", "scans": storage, "avatars": "scans", "icons": "avatars"})
    assert storages.names() == ["default", "scans"]
    assert [storages.real(name) for name in ("default", "scans", "avatars", "icons")] == ["default"] + 3 * ["scans"]
    assert storages.resolve("icons") is storages.resolve("scans") is storage
    default = storages.resolve("default")
    assert isinstance(default, LocalStorage)
    assert default.root == tmp_path


def test_unknown_names_are_answered_with_the_known_ones() -> None:
    storages = Registry({"b": "memory:", "a": "b", "t-*": "local:x/{name}"})
    assert unknown(storages, "c") == "there is no storage 'c'; configured are 'a', 'b', 't-*'"
    assert "'default'" in unknown(storages, None)
    with pytest.raises(UnknownStorage):
        storages.resolve("c")
    assert not storages.matches("c")
    assert storages.matches("a")


@pytest.mark.parametrize("mapping", [None, {}])
def test_an_empty_registry_says_that_it_waits_for_configure(mapping: Any) -> None:
    storages = Registry(mapping)
    assert "call configure()" in unknown(storages, "default")
    with pytest.raises(UnknownStorage, match=r"call configure\(\)"):
        storages.resolve()
    assert storages.names() == storages.patterns() == []


@pytest.mark.parametrize(
    "mapping",
    [
        {"a": "a"},
        {"a": "b", "b": "a"},
        {"x": "memory:", "a": "b", "b": "c", "c": "b"},
        {"a-*": "a-{name}", "x": "memory:"},
        {"*": "{name}"},
    ],
)
def test_aliases_in_a_circle_are_refused(mapping: dict[str, str]) -> None:
    with pytest.raises(BadConfiguration, match=r"round in circles|expected a URL"):
        Registry(mapping)


def test_a_circle_is_shown() -> None:
    with pytest.raises(BadConfiguration, match=r"'a' -> 'b' -> 'a'"):
        Registry({"a": "b", "b": "a"})


def test_an_alias_for_nothing_is_refused() -> None:
    with pytest.raises(BadConfiguration) as raised:
        Registry({"default": "./files", "other": "memory:"})
    expected = "'default' stands for './files': expected a URL, as 'local:./files', or one of 'default', 'other'"
    assert str(raised.value) == expected


def test_a_path_is_no_storage() -> None:
    with pytest.raises(BadConfiguration, match=r"'default' is PosixPath: expected a URL, as 'local:\./files'"):
        Registry(Path("files"))  # type: ignore[arg-type]


def test_a_class_is_no_storage() -> None:
    with pytest.raises(BadConfiguration, match=r"'default' is type: .*a storage"):
        Registry(MemoryStorage)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [3, None, "", "a:b", "a/b", "a\\b", "ä", "a\n", "a" * 101, "a*b*", ".", ".."])
def test_names_that_are_none(name: Any) -> None:
    with pytest.raises(BadConfiguration, match=r"can't name a storage"):
        Registry({name: "memory:"})


@pytest.mark.parametrize("name", ["a", "a" * 100, "My Files", "a.b", "a{b}", "a?b&c=d%20"])
def test_names_that_are_some(name: str) -> None:
    assert Registry({name: "memory:"}).real(name) == name


@pytest.mark.parametrize("value", [None, 3, b"memory:", object(), Path("files")])
def test_values_that_make_no_sense(value: Any) -> None:
    with pytest.raises(
        BadConfiguration, match=r"expected a URL, as 'local:./files', a storage or the name of another entry"
    ):
        Registry({"default": value})


def test_a_broken_url_is_found_at_once() -> None:
    with pytest.raises(BadConfiguration):
        Registry({"default": "1:2"})


# Patterns


def test_a_pattern_stands_for_many_names(tmp_path: Path) -> None:
    storages = Registry({"tenant-*": f"local:{tmp_path}/{{name}}"})
    storage = storages.resolve("tenant-a")
    assert isinstance(storage, LocalStorage)
    assert storage.root == tmp_path / "tenant-a"
    assert storages.resolve("tenant-a") is storage
    assert storages.resolve("tenant-b") is not storage
    assert storages.real("tenant-a") == "tenant-a"
    assert (storages.names(), storages.patterns()) == ([], ["tenant-*"])
    assert [storages.matches(name) for name in ("tenant-", "tenant", "x-tenant-a", "tenant-*")] == 4 * [False]


def test_exact_names_win_and_then_the_longest_pattern() -> None:
    storages = Registry(
        {
            "*": "memory:",
            "a-*": "local:x/{name}",
            "a-b-*": "memory:?parallel=2",
            "*-z": "memory:?parallel=3",
            "a-b-c": "memory:?parallel=4",
        }
    )
    assert storages.patterns() == ["a-b-*", "*-z", "a-*", "*"]
    kinds = {name: storages.resolve(name) for name in ("q", "a-q", "a-b-q", "a-b-z", "q-z", "a-b-c")}
    assert isinstance(kinds.pop("a-q"), LocalStorage)
    assert {name: storage.parallel for name, storage in kinds.items()} == {
        "q": 1,
        "a-b-q": 2,
        "a-b-z": 2,
        "q-z": 3,
        "a-b-c": 4,
    }


def test_a_pattern_may_be_an_alias() -> None:
    storages = Registry({"default": "memory:", "tenant-*": "default", "old-*": "new-{name}", "new-*": "memory:"})
    assert storages.real("tenant-1") == "default"
    assert storages.real("old-1") == "new-old-1"
    assert storages.patterns() == ["new-*"]


@pytest.mark.parametrize("value", ["local:./files", "s3://bucket", MemoryStorage()])
def test_a_pattern_gives_no_two_names_one_place(value: Any) -> None:
    with pytest.raises(BadConfiguration, match=r"would share"):
        Registry({"tenant-*": value})


@pytest.mark.parametrize("name", ["..", ".", "../x", "a/b", "a\\b", "", "ä", "x" * 101])
def test_a_pattern_takes_no_name_that_leads_elsewhere(name: str, tmp_path: Path) -> None:
    storages = Registry({"*": f"local:{tmp_path}/tenants/{{name}}"})
    assert not storages.matches(name)


def test_a_name_adds_no_option_to_the_url(tmp_path: Path) -> None:
    storage = Registry({"*": f"local:{tmp_path}/{{name}}"}).resolve("x?readonly=true&durable=false#%41")
    assert isinstance(storage, LocalStorage)
    assert storage.root == tmp_path / "x?readonly=true&durable=false#%41"
    assert (storage.readonly, storage.durable) == (False, True)


def test_a_name_adds_no_option_to_the_url_of_a_database_either() -> None:
    tenants = Registry({"*": "db:postgresql+psycopg://app@db/{name}%3Fapplication_name={name}"})
    storage = tenants.resolve("x?host=elsewhere&sslmode=disable")
    assert isinstance(storage, DatabaseStorage)
    url = storage.engine.url
    assert (url.host, unquote(str(url.database))) == ("db", "x?host=elsewhere&sslmode=disable")
    assert url.query == {"application_name": "x?host=elsewhere&sslmode=disable"}


# Configuring later


def test_is_configured_later() -> None:
    storages = Registry()
    storages.expect("avatars", "users.avatar")
    storages.configure({"default": "memory:", "avatars": "default"})
    assert storages.real("avatars") == "default"


def test_configuring_again_replaces_everything() -> None:
    storages = Registry({"default": "memory:", "old": "memory:"})
    put(storages.resolve(), "a", b"x")
    storages.configure("memory:")
    assert storages.names() == ["default"]
    assert listed(storages.resolve()) == []


def test_columns_are_checked_when_names_are_configured() -> None:
    storages = Registry()
    storages.expect("avatars", "users.avatar")
    storages.expect(None, "docs.file")
    with pytest.raises(UnknownStorage) as raised:
        storages.configure({"default": "memory:", "avatar": "memory:"})
    assert str(raised.value) == "users.avatar: there is no storage 'avatars'; configured are 'avatar', 'default'"
    assert "none is configured yet" in unknown(storages, "default")
    with pytest.raises(UnknownStorage, match=r"docs.file"):
        storages.configure({"avatars": "memory:"})


def test_configuring_tells_of_a_backend_that_a_column_uses_and_nobody_has(monkeypatch: pytest.MonkeyPatch) -> None:
    storages = Registry({"default": "memory:"})
    storages.expect(None, "docs.file")
    with pytest.raises(
        UnknownStorage, match=r"^docs\.file: storage 'default': there is no backend 'locl'; installed are"
    ):
        storages.configure({"default": "locl:./x"})
    assert storages.names() == ["default"]
    assert repr(storages) == "Registry({'default': 'memory:'})", "nothing has changed"
    with pytest.raises(UnknownStorage, match=r"^docs\.file: storage 'main': there is no backend 'locl'"):
        storages.configure({"default": "main", "main": "locl:./x"})
    monkeypatch.setattr(EntryPoint, "load", None)  # nothing is imported
    storages.configure({"default": "s3://bucket", "unused": "locl:./x"})


def test_columns_are_checked_when_they_are_mapped() -> None:
    storages = Registry({"default": "memory:", "t-*": "memory:"})
    storages.expect("default", "docs.file")
    storages.expect("t-1", "docs.scan")
    with pytest.raises(
        UnknownStorage, match=r"users.avatar: there is no storage 'avatars'; configured are 'default', 't-"
    ):
        storages.expect("avatars", "users.avatar")
    storages.configure("memory:" if storages.matches("x") else {"default": "memory:", "t-1": "memory:"})


def test_a_failing_configure_changes_nothing() -> None:
    storages = Registry({"default": "memory:"})
    before = storages.resolve()
    for broken in ({"default": "a", "a": "default"}, {"default": 3}, {"a/b": "memory:"}):
        with pytest.raises(BadConfiguration):
            storages.configure(broken)  # type: ignore[arg-type]
    assert storages.resolve() is before


def test_a_prefix_picks_from_flat_settings() -> None:
    ini = ConfigParser()
    ini.read_string(
        "[app]\nsqlalchemy.url = sqlite://\nattachments.default = memory:?parallel=2\nattachments.icons = default\n"
    )
    storages = Registry()
    storages.configure(ini["app"], prefix="attachments.")
    assert storages.names() == ["default"]
    assert storages.resolve("icons").parallel == 2


def test_a_prefix_in_capitals_is_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTACHMENTS_DEFAULT", "memory:")
    monkeypatch.setenv("ATTACHMENTS_AVATARS", "default")
    storages = Registry()
    storages.configure(os.environ, prefix="ATTACHMENTS_")
    assert (storages.names(), storages.real("avatars")) == (["default"], "default")


def test_a_prefix_that_nothing_has_is_a_mistake() -> None:
    with pytest.raises(BadConfiguration, match=r"nothing begins with 'attachment.': expected 'attachment.default'"):
        Registry().configure({"attachments.default": "memory:"}, prefix="attachment.")
    with pytest.raises(BadConfiguration, match=r"nothing begins with 'FILES_': expected 'FILES_DEFAULT'"):
        Registry().configure({}, prefix="FILES_")


# Making storages


def test_a_storage_is_made_once_by_many_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def slowly(url: StorageURL) -> MemoryStorage:
        time.sleep(0.05)
        made.append(url)
        return MemoryStorage()

    monkeypatch.setattr(MemoryStorage, "from_url", slowly)
    storages, start = Registry("memory:"), threading.Barrier(8)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: (start.wait(10), storages.resolve())[1], range(8)))
    assert len(made) == 1
    assert len(set(map(id, found))) == 1


def test_nothing_is_made_before_it_is_asked_for(tmp_path: Path) -> None:
    storages = Registry({"default": f"local:{tmp_path}/files", "other": "nonsense://x"})
    assert storages.matches("other")
    storages.resolve()
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_scheme_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UnknownStorage) as raised:
        Registry({"scans": "ftp://host"}).resolve("scans")
    assert "storage 'scans': there is no backend 'ftp'; installed are " in str(raised.value)
    assert "'local'" in str(raised.value)
    assert "'memory'" in str(raised.value)


def test_a_mistake_in_a_url_names_the_storage() -> None:
    with pytest.raises(BadConfiguration, match=r"storage 'scans': memory:.durible=false: no option 'durible'"):
        Registry({"scans": "memory:?durible=false"}).resolve("scans")


def with_backend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str) -> None:
    """A backend ``third:`` that is an own module of this source."""
    (tmp_path / "thirdparty_backend.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "thirdparty_backend", raising=False)
    point = EntryPoint("third", "thirdparty_backend:make", registry.GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda **wanted: EntryPoints([point]).select(**wanted))


def test_third_parties_add_backends(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with_backend(
        monkeypatch,
        tmp_path,
        "from sa_attachments.storages.memory import MemoryStorage\n"
        "def make(url):\n"
        "    return MemoryStorage(parallel=url.number('speed', 1))\n",
    )
    assert Registry("third:x?speed=5").resolve().parallel == 5


def test_a_missing_module_is_an_extra_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with_backend(monkeypatch, tmp_path, "import surely_not_installed\n")
    with pytest.raises(MissingExtra) as raised:
        Registry({"scans": "third:x"}).resolve("scans")
    assert "storage 'scans' needs the module 'surely_not_installed': pip install 'sa-attachments[third]'" in str(
        raised.value
    )
    assert isinstance(raised.value, ImportError)


def test_a_broken_backend_is_no_extra_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with_backend(monkeypatch, tmp_path, "import thirdparty_backend.nowhere\n")
    with pytest.raises(ModuleNotFoundError) as raised:
        Registry("third:x").resolve()
    assert not isinstance(raised.value, MissingExtra)


def test_whatever_keeps_a_backend_from_being_made_is_a_mistake_in_its_url(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source = "def make(url):\n    int(url.text('speed', 'very'))\n"
    with_backend(monkeypatch, tmp_path, source)
    storages = Registry({"scans": "third:x?speed=high&password=hidden"})
    with pytest.raises(BadConfiguration, match=r"storage 'scans': third:x.*: ValueError: invalid literal") as raised:
        storages.resolve("scans")
    assert "hidden" not in str(raised.value)
    assert isinstance(storages.probe()["scans"], BadConfiguration)


def test_a_driver_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with_backend(monkeypatch, tmp_path, "def make(url):\n    import surely_not_installed\n")
    with pytest.raises(MissingExtra, match="storage 'default' needs the module 'surely_not_installed'"):
        Registry("third:x").resolve()


# Overriding


def test_an_override_gives_every_name_a_fresh_storage() -> None:
    storages = Registry({"default": "memory:", "scans": "memory:", "avatars": "scans", "t-*": "memory:"})
    before = {name: storages.resolve(name) for name in ("default", "scans", "t-1")}
    with storages.override():
        inside = {name: storages.resolve(name) for name in before}
        assert len({id(storage) for storage in [*before.values(), *inside.values()]}) == 6
        assert storages.real("avatars") == "scans"
        assert storages.names() == ["default", "scans"]
        assert storages.matches("whatever")
    assert {name: storages.resolve(name) for name in before} == before
    assert not storages.matches("whatever")


def test_an_override_needs_no_configuration() -> None:
    storages = Registry()
    storages.expect("avatars", "users.avatar")
    with storages.override():
        put(storages.resolve("avatars"), "a", b"x")
        storages.expect("later", "docs.file")
        assert storages.resolve("later")
        assert storages.names() == ["default", "avatars"]
    assert "call configure()" in unknown(storages, "avatars")


def test_each_override_begins_empty() -> None:
    storages = Registry("memory:")
    for _ in range(2):
        with storages.override():
            assert listed(storages.resolve()) == []
            put(storages.resolve(), "a", b"x")


def test_a_url_without_a_name_is_one_place_for_all(tmp_path: Path) -> None:
    storages = Registry({"default": "memory:", "scans": "memory:", "avatars": "scans"})
    with storages.override(f"local:{tmp_path}?durable=false"):
        assert {storages.real(name) for name in ("default", "scans", "avatars", "new")} == {"default"}
        assert storages.names() == ["default"]
    storage = MemoryStorage()
    with storages.override(storage):
        assert storages.resolve("scans") is storages.resolve("avatars") is storage


def test_a_url_with_a_name_is_a_place_for_each(tmp_path: Path) -> None:
    storages = Registry({"default": "memory:", "scans": "memory:"})
    with storages.override(f"local:{tmp_path}/{{name}}"):
        roots = {getattr(storages.resolve(name), "root") for name in ("default", "scans", "new")}  # noqa: B009 - of LocalStorage
    assert roots == {tmp_path / "default", tmp_path / "scans", tmp_path / "new"}


def test_a_mapping_is_taken_as_it_is() -> None:
    storages = Registry({"default": "memory:", "scans": "memory:"})
    with storages.override({"default": "memory:?parallel=7"}):
        assert storages.resolve().parallel == 7
        assert not storages.matches("scans")


def test_overrides_nest_and_end_in_any_order() -> None:
    storages = Registry("memory:")
    outer, inner = storages.override("memory:?parallel=2"), storages.override("memory:?parallel=3")
    with outer:
        assert storages.resolve().parallel == 2
        with inner:
            assert storages.resolve().parallel == 3
        assert storages.resolve().parallel == 2
    first, second = storages.override("memory:?parallel=2"), storages.override("memory:?parallel=3")
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert storages.resolve().parallel == 3
    second.__exit__(None, None, None)
    assert storages.resolve().parallel == 1


def test_an_override_is_lifted_by_an_error() -> None:
    storages = Registry("memory:")
    with pytest.raises(ZeroDivisionError), storages.override("memory:?parallel=2"):
        raise ZeroDivisionError
    assert storages.resolve().parallel == 1


def test_configuring_inside_an_override_shows_after_it() -> None:
    storages = Registry()
    with storages.override():
        storages.configure("memory:?parallel=4")
        assert storages.resolve().parallel == 1
    assert storages.resolve().parallel == 4


def test_a_resolver_stays_with_what_the_names_stand_for() -> None:
    storages = Registry({"default": "memory:", "scans": "memory:"})
    with storages.override():
        resolve, inside = storages.resolver(), storages.resolve()
    storages.configure({"default": "memory:"})
    assert resolve("default") is inside
    assert resolve("scans") is resolve("scans") is not inside
    assert storages.resolve() is not inside
    with pytest.raises(UnknownStorage):
        storages.resolver()("scans")


# Showing


def test_repr_keeps_secrets() -> None:
    class Vault(MemoryStorage):
        def __repr__(self) -> str:
            return "hunter2"

    storages = Registry({"a": "s3://me:hunter2@bucket?secret=hunter2", "b": Vault(), "c": "a"})
    assert repr(storages) == "Registry({'a': 's3://me:***@bucket?secret=***', 'b': '<Vault>', 'c': 'a'})"
    assert repr(Registry()) == "Registry()"
    for broken in ({"a-*": "s3://me:hunter2@bucket"}, {"a-*": Vault()}):
        with pytest.raises(BadConfiguration) as raised:
            Registry(broken)  # type: ignore[arg-type]
        assert "hunter2" not in str(raised.value)
