"""The scores of a run, read by pandas, by DuckDB and by polars: four questions, and the same answers.

    python examples/read_results.py RUN [pandas | duckdb | polars]

RUN is a local --out of train.py, predict.py or evaluate.py.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl

Rows = list[tuple[Any, ...]]

SUMMARIES = "**/metrics/summary.parquet"  # below RUN: of a cross-validation those of its folds too
N_WORST = 5


def table(run: Path, name: str) -> str:
    """A table of the test split of a run, of all folds of a cross-validation, or of a prediction."""
    places = (run / "metrics" / f"{name}.parquet", run / "test" / "metrics" / f"{name}.parquet")
    found = next((place for place in places if place.exists()), None)
    if found is None:
        raise SystemExit(f"{places[1]} is missing; give the --out of train.py, predict.py or evaluate.py")
    return str(found)


# Which mean Dice has each region, with its 95 % interval by bootstrap over patients?


def dice_by_pandas(run: Path) -> Rows:
    files = sorted(run.glob(SUMMARIES))
    summary = pd.concat([pd.read_parquet(file).assign(file=str(file)) for file in files])
    rows = summary.query("metric == 'dice' and convention == 'brats' and subset == 'all'")
    rows = rows.sort_values(["file", "region"], ascending=[True, False])  # WT, TC, ET
    return as_rows(rows[["file", "region", "n", "mean", "ci95_low", "ci95_high"]])


def dice_by_duckdb(run: Path) -> Rows:
    query = """
        SELECT filename, region, n, mean, ci95_low, ci95_high
        FROM read_parquet($summaries, filename = true)
        WHERE metric = 'dice' AND convention = 'brats' AND subset = 'all'
        ORDER BY filename, region DESC
    """
    return duckdb.execute(query, {"summaries": f"{run}/{SUMMARIES}"}).fetchall()


def dice_by_polars(run: Path) -> Rows:
    chosen = (pl.col("metric") == "dice") & (pl.col("convention") == "brats") & (pl.col("subset") == "all")
    return (
        pl.read_parquet(f"{run}/{SUMMARIES}", include_file_paths="file")
        .filter(chosen)
        .sort("file", "region", descending=[False, True])
        .select("file", "region", "n", "mean", "ci95_low", "ci95_high")
        .rows()
    )


# Which cases are worst, by the mean Dice of their regions?


def worst_by_pandas(run: Path) -> Rows:
    cases = pd.read_parquet(table(run, "cases"))
    means = cases.groupby("case_id")["dice"].mean().dropna().reset_index()
    return as_rows(means.sort_values(["dice", "case_id"]).head(N_WORST))


def worst_by_duckdb(run: Path) -> Rows:
    query = """
        SELECT case_id, avg(dice) AS mean_dice
        FROM read_parquet($cases)
        WHERE dice IS NOT NULL
        GROUP BY case_id ORDER BY mean_dice, case_id LIMIT $n_worst
    """
    return duckdb.execute(query, {"cases": table(run, "cases"), "n_worst": N_WORST}).fetchall()


def worst_by_polars(run: Path) -> Rows:
    cases = pl.read_parquet(table(run, "cases"))
    means = cases.group_by("case_id").agg(pl.col("dice").mean()).drop_nulls()
    return means.sort("dice", "case_id").head(N_WORST).rows()


# What do conventions by lesion make of the same masks?


def lesions_by_pandas(run: Path) -> Rows:
    cases = pd.read_parquet(table(run, "cases"))
    means = cases.groupby("region")[["dice", "lesion_dice_2023", "lesion_dice_2026"]].mean()
    return as_rows(means.sort_index(ascending=False).reset_index())


def lesions_by_duckdb(run: Path) -> Rows:
    query = """
        SELECT region, avg(dice), avg(lesion_dice_2023), avg(lesion_dice_2026)
        FROM read_parquet($cases)
        GROUP BY region ORDER BY region DESC
    """
    return duckdb.execute(query, {"cases": table(run, "cases")}).fetchall()


def lesions_by_polars(run: Path) -> Rows:
    cases = pl.read_parquet(table(run, "cases"))
    means = cases.group_by("region").agg(pl.col("dice", "lesion_dice_2023", "lesion_dice_2026").mean())
    return means.sort("region", descending=True).rows()


# In which slice is the whole tumour of the worst cases farthest off, by its voxels?


def slices_by_pandas(run: Path) -> Rows:
    cases = pd.read_parquet(table(run, "cases")).query("region == 'WT'")
    slices = pd.read_parquet(table(run, "slices")).query("region == 'WT'")
    worst = cases.dropna(subset=["dice"]).sort_values(["dice", "case_id"]).head(N_WORST)[["case_id", "dice"]]
    joined = worst.merge(slices.drop(columns="dice"), on="case_id")
    joined["off"] = (joined["n_predicted_voxels"] - joined["n_reference_voxels"]).abs()
    joined = joined.sort_values(["dice", "case_id", "off", "slice_index"], ascending=[True, True, False, True])
    columns = ["case_id", "dice", "slice_index", "n_reference_voxels", "n_predicted_voxels"]
    return as_rows(joined.drop_duplicates("case_id")[columns])


def slices_by_duckdb(run: Path) -> Rows:
    query = """
        WITH worst AS (
            SELECT case_id, dice FROM read_parquet($cases)
            WHERE region = 'WT' AND dice IS NOT NULL ORDER BY dice, case_id LIMIT $n_worst
        )
        SELECT case_id, worst.dice, slice_index, n_reference_voxels, n_predicted_voxels
        FROM worst JOIN read_parquet($slices) AS slices USING (case_id)
        WHERE region = 'WT'
        QUALIFY row_number() OVER (
            PARTITION BY case_id ORDER BY abs(n_predicted_voxels - n_reference_voxels) DESC, slice_index
        ) = 1
        ORDER BY worst.dice, case_id
    """
    given = {"cases": table(run, "cases"), "slices": table(run, "slices"), "n_worst": N_WORST}
    return duckdb.execute(query, given).fetchall()


def slices_by_polars(run: Path) -> Rows:
    cases = pl.read_parquet(table(run, "cases")).filter(pl.col("region") == "WT")
    slices = pl.read_parquet(table(run, "slices")).filter(pl.col("region") == "WT")
    worst = cases.drop_nulls("dice").sort("dice", "case_id").head(N_WORST).select("case_id", "dice")
    off = (pl.col("n_predicted_voxels") - pl.col("n_reference_voxels")).abs()
    return (
        worst.join(slices.drop("dice"), on="case_id")
        .sort("dice", "case_id", off, "slice_index", descending=[False, False, True, False])
        .unique("case_id", keep="first", maintain_order=True)
        .select("case_id", "dice", "slice_index", "n_reference_voxels", "n_predicted_voxels")
        .rows()
    )


LIBRARIES: dict[str, tuple[Callable[[Path], Rows], ...]] = {
    "pandas": (dice_by_pandas, worst_by_pandas, lesions_by_pandas, slices_by_pandas),
    "duckdb": (dice_by_duckdb, worst_by_duckdb, lesions_by_duckdb, slices_by_duckdb),
    "polars": (dice_by_polars, worst_by_polars, lesions_by_polars, slices_by_polars),
}
TITLES = (
    "Mean Dice: file, region, cases, mean, 95 % interval",
    f"The {N_WORST} worst cases: case, mean Dice of its regions",
    "Mean Dice of the patient and by lesion: region, patient, 2023, 2026",
    "Where the worst are farthest off: case, Dice of WT, slice, voxels of the reference, of the prediction",
)


def as_rows(frame: pd.DataFrame) -> Rows:
    return [*frame.itertuples(index=False, name=None)]


def to_text(value: Any) -> str:
    """A cell; a null is a dash, which pandas has as NaN."""
    if value is None or value != value:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def main(run: Path, library: str = "pandas") -> None:
    table(run, "summary")  # or else one line says what is missing
    for title, answer in zip(TITLES, LIBRARIES[library], strict=True):
        print(title)
        for row in answer(run):
            print(" ", *map(to_text, row))


if __name__ == "__main__":
    if not 2 <= len(sys.argv) <= 3 or sys.argv[2:] not in ([], *([name] for name in LIBRARIES)):
        raise SystemExit(f"python {sys.argv[0]} RUN [{' | '.join(LIBRARIES)}]")
    main(Path(sys.argv[1]), *sys.argv[2:])
