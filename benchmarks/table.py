"""Write the tables of the pages in docs/ from the result files.

    python -m benchmarks.table

Each result file has its place in the page, between `<!-- FILE -->` and `<!-- /FILE -->`. A number
stands there only if a result file holds it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import (
    anomalies,
    bounds,
    conditional,
    embed,
    explorer,
    imputation,
    ingest,
    memory,
    parallel,
    safeguards,
    scaling,
    shards,
)
from benchmarks.machine import describe
from benchmarks.report import RESULTS
from benchmarks.summary import (
    AGREE_HEADER,
    ENGINE_HEADER,
    HEADER,
    QUALITY_HEADER,
    agree_rows,
    failures,
    quality_rows,
    summarise,
    summarise_engine,
    verdicts,
)

DOCS = Path(__file__).parent.parent / "docs"


def peers_table(result: dict[str, Any]) -> str:
    """The side-by-side comparison, its machine, versions and command."""
    summaries = summarise(result)
    rows = [[f"`{item.name}`: {item.what}", *item.cells()] for item in summaries]
    images = ", ".join(f"{name} {n:,}" for name, n in result["images"].items())
    return page_part(
        result,
        markdown(HEADER, rows),
        [f"`{item.name}` is incomplete: {item.error}" for item in summaries if item.error],
        f"{result['rounds']} interleaved rounds, threads {result['threads']}, batch "
        f"{result['batch_size']}; median (lowest–highest). Images timed a round: {images}.",
        (row for peer in result["peers"].values() for row in peer["rounds"]),
    )


def engine_table(result: dict[str, Any]) -> str:
    """The variants of the training step, and the ceilings that they are held against."""
    summaries = summarise_engine(result)
    rows = [[f"`{item.name}`: {item.what}", *item.cells()] for item in summaries]
    ceilings = ", ".join(
        f"{max(found):,.0f} GFLOP/s in {name}" for name, found in result["ceiling_gflops"].items()
    )
    return page_part(
        result,
        markdown(ENGINE_HEADER, rows),
        [
            *(f"`{item.name}` was skipped: {item.error}" for item in summaries if item.error),
            f"Counted: {result['flops_per_image']:,} operations an image. Ceiling: {ceilings}.",
        ],
        f"{result['rounds']} rounds of {result['steps']} steps in turn, threads "
        f"{result['threads']}, batch {result['batch_size']}, {result['images']}; median "
        "(lowest–highest).",
        [result],
    )


def quality_table(result: dict[str, Any]) -> str:
    """The race to the target."""
    return page_part(
        result,
        markdown(QUALITY_HEADER, quality_rows(result)),
        failures(result),
        f"Target {result['target']:g}, threads {result['threads']}; mean (lowest–highest).",
        [result],
    )


def agree_table(result: dict[str, Any]) -> str:
    """Validation bounds in float32 and bfloat16, nats per image."""
    return page_part(
        result,
        markdown(AGREE_HEADER, agree_rows(result)),
        [*verdicts(result), *failures(result)],
        f"Threads {result['threads']}; mean (lowest–highest).",
        [result],
    )


def memory_table(result: dict[str, Any]) -> str:
    """The memory of a run, epoch by epoch."""
    return page_part(
        result,
        markdown(memory.HEADER, memory.rows(result)),
        [],
        f"{result['recipe']} in {result['precision']}, threads {result['threads']}.",
        [result],
    )


def bounds_table(result: dict[str, Any]) -> str:
    """Importance-weighted evaluation as K grows."""
    return page_part(
        result,
        markdown(bounds.HEADER, bounds.rows(result)),
        [],
        f"`{result['model']}` on {result['images']:,} test images of MNIST, threads "
        f"{result['threads']}; a process for each K, its whole time counted.",
        [result],
    )


def parallel_table(result: dict[str, Any]) -> str:
    """Processes against threads."""
    return page_part(
        result,
        markdown(parallel.HEADER, parallel.rows(result)),
        [],
        f"{result['rounds']} interleaved rounds of {result['steps']} steps, batch "
        f"{result['batch_size']} in all, random pixels; median (lowest–highest).",
        [result],
    )


def anomalies_table(result: dict[str, Any]) -> str:
    """The scores against each other, then digit by digit."""
    run = result["runs"][0]
    settings = ", ".join(f"{name} {value}" for name, value in result["settings"].items())
    side = result.get("side", 28)
    first = "normal class" if result.get("task", "nine") != "nine" else "abnormal digit"
    header = [f"{first}: AUROC", *anomalies.names(result)]
    by_digit = markdown(header, anomalies.digit_rows(result))
    return page_part(
        result,
        markdown(anomalies.HEADER, anomalies.rows(result)),
        [
            f"Flagged are images with p <= {result['rate']:g}, calibrated on {result['normal']:,} "
            "normal training images that the model was not trained on.",
            by_digit,
        ],
        f"About {run['training_images']:,} training images at {side}x{side}, {settings}; "
        f"{result['samples']} draws for the importance-weighted bound; "
        f"{result['test_images']:,} test images; one training a digit, threads "
        f"{result['threads']}.",
        [result],
    )


def imputation_table(result: dict[str, Any]) -> str:
    """How far off it is what is put in the place of missing pixels."""
    return page_part(
        result,
        markdown(imputation.HEADER, imputation.rows(result)),
        [],
        f"{result['images']:,} test images, {result['train_images']:,} training images, "
        f"{result['missing']:.0%} of the pixels missing; {result['accepted']:.0%} of the proposals "
        f"taken; {result['seconds']:.0f} s.",
        [result],
    )


def explorer_table(result: dict[str, Any]) -> str:
    """How soon the live page answers."""
    return page_part(
        result,
        markdown(explorer.HEADER, explorer.rows(result)),
        [],
        f"`{result['model']}`, {result['points']:,} test images of MNIST on the map; from the "
        "event in the browser to the new picture in it.",
        [result],
    )


def ingest_table(result: dict[str, Any]) -> str:
    """Reading one's own images."""
    return page_part(
        result,
        markdown(ingest.HEADER, ingest.rows(result)),
        [],
        f"{result['images']:,} colour JPEGs of {result['side']}x{result['side']}, "
        f"{result['rounds']} interleaved rounds; median (lowest–highest).",
        [result],
    )


def embed_table(result: dict[str, Any]) -> str:
    """How long an embedding takes, and what a linear classifier makes of it."""
    return page_part(
        result,
        markdown(embed.HEADER, embed.rows(result)),
        [
            embed.verdict(result),
            "The classifier is not regularised, on standardised means; neither was tuned.",
        ],
        f"`{result['model']}`, {result['images']:,} test images of MNIST resized beforehand, "
        f"{result['rounds']} rounds after one that is not timed, threads {result['threads']}, "
        "float32; median (lowest–highest).",
        [result],
    )


def conditional_table(result: dict[str, Any]) -> str:
    """What labels are worth to a model of MNIST."""
    settings = ", ".join(f"{name} {value}" for name, value in result["settings"].items())
    limit = f"the first {result['limit']:,}" if result["limit"] else "all"
    rows = [[words.replace("|", "\\|"), value] for words, value in conditional.rows(result)]
    return page_part(
        result,
        markdown(conditional.HEADER, rows),
        [],
        f"MNIST, recipe {result['recipe']} with {settings}; {limit} training images, "
        f"{result['epochs']} epochs; bounds of {result['samples']} weights on "
        f"{result['test_images']:,} test images, {result['draws']} draws of each; "
        f"{result['generated']:,} samples; threads "
        f"{result['threads']}.",
        [result],
    )


def scaling_table(result: dict[str, Any]) -> str:
    """Several processes against one and against plain PyTorch, what a step costs, where it ends."""
    return page_part(
        result,
        markdown(scaling.HEADER, scaling.rows(result)),
        [
            markdown(scaling.COSTS, scaling.cost_rows(result)),
            markdown(scaling.PAYS, scaling.pay_rows(result)),
        ],
        f"{result['rounds']} interleaved rounds of {result['steps']} steps, float32, random "
        f"pixels; 1 process of {result['cores']} threads, {result['processes']} of "
        f"{max(1, result['cores'] // result['processes'])}; median (lowest–highest). The last "
        "table is computed by the model above from the others and the networks' stated speeds.",
        [result],
    )


def shards_table(result: dict[str, Any]) -> str:
    """Training from shards against training from memory, and memory over more and more shards."""
    return page_part(
        result,
        markdown(shards.HEADER, shards.rows(result)),
        [],
        f"Colour JPEGs of {result['side']}x{result['side']}, {result['images_per_shard']:,} per "
        f"shard; training in turn, threads {result['threads']}; median (lowest–highest).",
        [result],
    )


def safeguards_table(result: dict[str, Any]) -> str:
    """What saves and checksums cost."""
    return page_part(
        result,
        markdown(safeguards.HEADER, safeguards.rows(result)),
        [],
        f"{result['rounds']} rounds, in turn; {result['threads']} cores; median (lowest–highest).",
        [result],
    )


TABLES: dict[str, dict[str, Callable[[dict[str, Any]], str]]] = {
    "performance.md": {
        "peers.json": peers_table,
        "engine.json": engine_table,
        "quality.json": quality_table,
        "agree.json": agree_table,
        "memory.json": memory_table,
        "parallel.json": parallel_table,
        "bounds.json": bounds_table,
        "ingest.json": ingest_table,
        "explorer.json": explorer_table,
    },
    "anomalies.md": {
        "anomalies.json": anomalies_table,
        "anomalies-one.json": anomalies_table,
        "anomalies-photos.json": anomalies_table,
    },
    "labels.md": {"conditional.json": conditional_table},
    "embeddings.md": {"embed.json": embed_table},
    "missing.md": {"imputation.json": imputation_table},
    "ladder.md": {
        "engine-mnist-ladder.json": engine_table,
        "engine-photos.json": engine_table,
        "memory-mnist-ladder.json": memory_table,
        "memory-photos.json": memory_table,
    },
    "reliability.md": {"safeguards.json": safeguards_table},
    "scaling.md": {
        "scaling.json": scaling_table,
        "scaling-ladder.json": scaling_table,
        "shards.json": shards_table,
    },
}
"""Page -> result file -> the function that makes its part of the page."""


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; every column but the first is aligned right."""
    marks = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, marks, *rows))


def page_part(
    result: dict[str, Any],
    table: str,
    remarks: Iterable[str],
    conditions: str,
    ran_with: Iterable[dict[str, Any]],
) -> str:
    """A table with what belongs to every table: date, machine, versions, command.

    Args:
        result: Content of the result file.
        table: In Markdown.
        remarks: Sentences, a paragraph each.
        conditions: How it was measured.
        ran_with: Records that have the versions of packages.
    """
    paragraphs = [
        table,
        *remarks,
        f"{result['date']}. {conditions}",
        f"Machine: {describe(result['machine'])}.",
        f"Versions: {versions(ran_with)}.",
        f"Command: `{result['command']}`",
    ]
    return "\n\n".join(paragraphs)


def versions(records: Iterable[dict[str, Any]]) -> str:
    """The versions of every package in some records, each once."""
    found = {f"{name} {number}" for row in records for name, number in row["versions"].items()}
    return ", ".join(sorted(found))


def fill(page: str, name: str, content: str) -> str:
    """Replace what stands between the two markers of a result file.

    Raises:
        ValueError: the page does not have the markers, once each.
    """
    pattern = re.compile(
        rf"(<!-- {re.escape(name)} -->\n).*?(<!-- /{re.escape(name)} -->)", re.DOTALL
    )
    filled, count = pattern.subn(lambda found: f"{found[1]}{content}\n{found[2]}", page)
    if count != 1:
        raise ValueError(f"the page has the markers of {name} {count} times, not once")
    return filled


def main() -> None:
    """Fill in every part of every page."""
    for page_name, tables in TABLES.items():
        page = (DOCS / page_name).read_text(encoding="utf-8")
        for name, table in tables.items():
            path = RESULTS / name
            known = path.exists()
            content = (
                table(json.loads(path.read_text(encoding="utf-8")))
                if known
                else "Not measured yet."
            )
            page = fill(page, name, content)
            print(f"{name}: {'written' if known else 'no result file yet'}")
        (DOCS / page_name).write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
