"""Headers as an ordered mapping whose keys ignore case."""

from collections.abc import Iterable, Iterator, Mapping, MutableMapping


class IOrderedDict(MutableMapping[str, str]):
    """Keeps the order and the spelling in which keys first came; looks them up in any case."""

    def __init__(self, items: Mapping[str, str] | Iterable[tuple[str, str]] = ()) -> None:
        self._items: dict[str, tuple[str, str]] = {}
        self.update(items)

    def __getitem__(self, key: str) -> str:
        return self._items[key.lower()][1]

    def __setitem__(self, key: str, value: str) -> None:
        spelling, _ = self._items.get(key.lower(), (key, ""))
        self._items[key.lower()] = (spelling, value)

    def __delitem__(self, key: str) -> None:
        del self._items[key.lower()]

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and key.lower() in self._items

    def __iter__(self) -> Iterator[str]:
        return (spelling for spelling, _ in self._items.values())

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        return f"IOrderedDict({list(self.items())!r})"
