"""What spots and genes on disk are called, and their tables: read when asked for, joined where there are tiles."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse as sp

from ..errors import DataError
from .disk import Node, columns_of, encoding, index_key, is_current_frame, opened, reading

if TYPE_CHECKING:
    from anndata import AnnData


class Tile(NamedTuple):
    """One AnnData on disk: its place, its spots, its entries (None: dense) and the dtype of what is read."""

    path: Path
    n_spots: int
    nnz: int | None
    dtype: np.dtype


class Labels:
    """Names and tables of the spots and genes in one or more AnnData files; the part of a SpotStore without counts."""

    tiles: tuple[Tile, ...]
    shape: tuple[int, int]
    adata: AnnData | None
    _names: dict[str, pd.Index]

    @property
    def obs_names(self) -> pd.Index:
        """Names of the spots."""
        return self._index("obs", self.tiles)

    @property
    def var_names(self) -> pd.Index:
        """Names of the genes."""
        return self._index("var", self.tiles[:1])

    def _index(self, table: str, tiles: tuple[Tile, ...]) -> pd.Index:
        if self.adata is not None:
            return getattr(self.adata, table).index
        if table not in self._names:
            found = []
            for tile in tiles:
                with opened(tile.path) as root:
                    found.append(read_index(root[table], table, tile.path))
            self._names[table] = found[0].append(found[1:]) if len(found) > 1 else found[0]
        return self._names[table]

    @property
    def obs(self) -> pd.DataFrame:
        """Columns of the spots, read anew; of tiles, those that all tiles have."""
        if self.adata is not None:
            return self.adata.obs
        frames = [_read_elem(tile.path, "obs") for tile in self.tiles]
        if len(frames) == 1:
            self._names.setdefault("obs", _as_names(frames[0].index))
            return frames[0].set_axis(self.obs_names, axis=0)
        kept = [name for name in frames[0] if all(name in frame for frame in frames)]
        columns = {name: _joined([frame[name] for frame in frames]) for name in kept}
        return pd.DataFrame(columns, index=range(self.shape[0])).set_axis(self.obs_names, axis=0)

    @property
    def obs_keys(self) -> list[str]:
        """Names of the columns of `obs`, without reading them."""
        if self.adata is not None:
            return [str(name) for name in self.adata.obs.columns]
        return self._keys(lambda root: columns_of(root["obs"]))

    def obs_column(self, name: str) -> pd.Series:
        """One column of `obs`, numbered from 0.

        Parameters
        ----------
        name : str
            Of the column.

        Raises
        ------
        KeyError
            There is none of this name.
        """
        if name not in self.obs_keys:
            raise KeyError(name)
        if self.adata is not None:
            return self.adata.obs[name].reset_index(drop=True)
        found = []
        for tile in self.tiles:
            with opened(tile.path) as root:
                whole = not is_current_frame(root["obs"])
            values = _read_elem(tile.path, "obs")[name] if whole else _read_elem(tile.path, "obs", name)
            found.append(pd.Series(values, name=name).reset_index(drop=True))
        return _joined(found)

    @property
    def var(self) -> pd.DataFrame:
        """Columns of the genes, read anew; of tiles, those of the first."""
        if self.adata is not None:
            return self.adata.var
        return _read_elem(self.tiles[0].path, "var").set_axis(self.var_names, axis=0)

    @property
    def obs_index_name(self) -> str:
        """What the names of the spots are called in the file; "_index" where they have no name."""
        if self.adata is not None:
            return str(self.adata.obs.index.name or "_index")
        with opened(self.tiles[0].path) as root:
            return index_key(root["obs"])

    @property
    def has_x(self) -> bool:
        """Whether all files have an X."""
        return "X" in self._keys(lambda root: ["X"] if "X" in root and encoding(root["X"]) != "null" else [])

    @property
    def layers(self) -> list[str]:
        """Names of the layers; of tiles, those that all tiles have."""
        return self._keys(lambda root: names_in(root, "layers"))

    @property
    def obsm_keys(self) -> list[str]:
        """Keys of `obsm`; of tiles, those that all tiles have."""
        if self.adata is not None:
            return list(self.adata.obsm)
        return self._keys(lambda root: names_in(root, "obsm"))

    def _keys(self, listed: Any) -> list[str]:
        found: list[list[str]] = []
        for tile in self.tiles:
            with opened(tile.path) as root, reading("spatial", tile.path):
                found.append(listed(root))
        return [name for name in found[0] if all(name in others for others in found[1:])]

    def obsm(self, key: str) -> Any:
        """One entry of `obsm`, (n_spots, ...): ndarray, DataFrame or sparse matrix, as it is stored.

        Parameters
        ----------
        key : str
            Of the entry.

        Raises
        ------
        KeyError
            There is none of this key, or not in every tile.
        DataError
            Its shape differs between tiles.
        """
        if self.adata is not None:
            return self.adata.obsm[key]
        if key not in self.obsm_keys:
            raise KeyError(key)
        values = [_read_elem(tile.path, "obsm", key) for tile in self.tiles]
        if len(values) == 1:
            return values[0]
        widths = {value.shape[1:] for value in values}
        if len(widths) > 1:
            got = " and ".join(str(width[0] if width else 1) for width in sorted(widths))
            raise DataError(f"spatial.obsm[{key!r}] must have as many columns in all tiles; got {got}.")
        if all(isinstance(value, pd.DataFrame) for value in values):
            return pd.concat(values)
        if any(sp.issparse(value) for value in values):
            return sp.vstack(values, format="csr")
        return np.concatenate([np.asarray(value) for value in values])

    def without_counts(self, *keys: str) -> AnnData:
        """An AnnData of the labels: obs, var, some entries of `obsm`; all of them where one is not there.

        Parameters
        ----------
        *keys : str
            Of the entries.
        """
        from anndata import AnnData

        there = self.obsm_keys
        obsm = {key: self.obsm(key) for key in (keys if set(keys) <= set(there) else there)}
        obs = self.obs.copy()
        with reading("spatial.obsm", self.tiles[0].path):  # entries that are no tables, or of other lengths
            return AnnData(obs=obs, var=self.var.copy(), obsm=obsm)


def names_in(root: Node, table: str) -> list[str]:
    """Names of what lies in "layers", "obsm", ..., sorted; none where it is missing."""
    return sorted(root[table]) if table in root else []


def read_index(frame: Node, table: str, path: Path) -> pd.Index:
    """Row names of a stored table, without its columns."""
    from anndata.io import read_elem

    key = index_key(frame)
    with reading(f"spatial.{table}", path):
        return _as_names(pd.Index(read_elem(frame[key]), name=None if key == "_index" else key))


def _as_names(index: pd.Index) -> pd.Index:
    is_text = index.dtype == object or isinstance(index.dtype, pd.StringDtype)
    return index if is_text else index.astype(str)


def _read_elem(path: Path, *keys: str) -> Any:
    from anndata.io import read_elem

    with opened(path) as root, reading("spatial." + ".".join(keys), path):
        for key in keys:
            root = root[key]
        return read_elem(root)


def _joined(columns: list[pd.Series]) -> pd.Series:
    """One column of all tiles; categories are united."""
    if all(isinstance(column.dtype, pd.CategoricalDtype) for column in columns):
        same = all(column.dtype == columns[0].dtype for column in columns)
        if same or not any(column.cat.ordered for column in columns):
            return pd.Series(pd.api.types.union_categoricals(columns), name=columns[0].name)
    return pd.concat(columns, ignore_index=True)
