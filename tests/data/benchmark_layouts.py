"""Tiny data sets in the layouts of the benchmarks: what the authors publish, with drawn pictures.

Every writer takes rows of (question, answer, colours), one picture per colour, and returns the
folder that `benchmark.path` wants.
"""

import io
import json
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from PIL import Image

BENCHMARKS = Path(__file__).parents[2] / "conf" / "benchmark"
PUBLISHED_PROMPT = (
    "You first think through the reasoning process as an internal monologue, enclosed within "
    "<think> </think> tags. Then, provide your final answer enclosed within \\boxed{}."
)
ROWS = [
    ("What is the area of the red square?", "4 \\sqrt { 3 }", ["red"]),
    ("Which is blue?\nChoices:\n(A) the first\n(B) the second", "B", ["green", "blue"]),
    ("How many squares are there?", "12", ["white"]),
    ("Find x.", "\\frac { 9 } { 2 }", ["black"]),
]


def png(colour, size=(30, 20)):
    encoded = io.BytesIO()
    Image.new("RGB", size, colour).save(encoded, "PNG")
    return encoded.getvalue()


def write_zip(file, members):
    """Writes members, a dict from name to bytes, with a folder entry where a name ends so."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file


def problems_node(key):
    """Returns sets.KEY.problems of conf/benchmark/KEY.yaml."""
    config = yaml.safe_load((BENCHMARKS / f"{key}.yaml").read_text())
    return config["sets"][key]["problems"]


def write_papo_eval(
    folder,
    key,
    rows=ROWS,
    *,
    inner="pictures/",
    written="./data/images/pictures/",
    extracted=False,
    boxed=False,
    parquet_folder="data",
):
    """Writes one split as PAPO-Galaxy/PAPO_eval has it.

    Args:
        folder: is made; several keys may share it.
        key: of the benchmark.
        rows: (question, answer, colours).
        inner: folder of the pictures inside the zip.
        written: what the rows write before the name of a picture.
        extracted: leave the pictures as a folder instead of a zip.
        boxed: write the references in a box.
        parquet_folder: data, or empty for the top.
    """
    node = problems_node(key)
    table, pictures = [], {}
    for index, (question, answer, colours) in enumerate(rows):
        names = [f"{index}_{place}.png" for place in range(len(colours))]
        pictures.update(
            (inner + name, png(colour)) for name, colour in zip(names, colours, strict=True)
        )
        table.append(
            {
                "id": str(index),
                "images": [written + name for name in names],
                "messages": [
                    {
                        "role": "user",
                        "content": "<image>" * len(colours) + f"{question} {PUBLISHED_PROMPT}",
                    },
                    {
                        "role": "assistant",
                        "content": f"\\boxed{{{answer}}}" if boxed else answer,
                    },
                ],
            }
        )
    parquet = Path(folder) / parquet_folder / f"{node['split']}-00000-of-00001.parquet"
    parquet.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(table), parquet)
    _write_pictures(Path(folder) / node["archive"], pictures, extracted=extracted)
    return Path(folder)


def write_logicvista(folder, rows=ROWS):
    """Writes a clone of Yijia-Xiao/LogicVista: one picture a row, and an entry without a question."""
    pictures = Path(folder) / "data" / "images"
    pictures.mkdir(parents=True)
    table = {}
    for index, (question, answer, colours) in enumerate(rows):
        (pictures / f"v1_{index}.png").write_bytes(png(colours[0]))
        table[f"v1_{index}"] = _logicvista_entry(f"v1_{index}.png", question, answer)
    table["v1_382"] = _logicvista_entry("v1_382.png", "", "")
    (Path(folder) / "data" / "dataset.json").write_text(json.dumps(table, indent=4))
    return Path(folder)


def _logicvista_entry(picture, question, answer):
    return {
        "imagename": picture,
        "question": question,
        "answer": answer,
        "reasoning": "",
        "skill": ["inductive"],
        "broad_capability": ["diagram"],
        "specific_capability": ["pattern"],
        "imagesource": "test",
        "sourcelink": "",
        "liscenced": "false",
    }


def write_virl39k(folder, rows=ROWS, *, extracted=False):
    """Writes TIGER-Lab/ViRL39K: one parquet file, images.zip, and a text-only problem at the end."""
    table, pictures = [], {}
    for index, (question, answer, colours) in enumerate(rows):
        names = [f"images/{index}-{place}.jpg" for place in range(len(colours))]
        pictures.update((name, png(colour)) for name, colour in zip(names, colours, strict=True))
        table.append(_virl39k_row(index, "<image>" * len(colours) + question, answer, names))
    table.append(_virl39k_row(len(rows), "One and one?", "2", []))
    Path(folder).mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(table), Path(folder) / "39Krelease.parquet")
    if extracted:
        for name, content in pictures.items():
            file = Path(folder) / name
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(content)
    else:
        write_zip(Path(folder) / "images.zip", pictures)
    return Path(folder)


def _virl39k_row(index, question, answer, images):
    return {
        "qid": f"q-{index}",
        "question": question,
        "answer": f"\\boxed{{{answer}}}",
        "image": images,
        "category": "(GradeSchool) Geometric",
        "source": "test",
        "PassRate_32BTrained": 0.5,
        "PassRate_7BBase": 0.25,
    }


def write_table(folder, rows=ROWS, *, split="test", kind="parquet"):
    """Writes problem, answer, images: SPLIT.parquet with the pictures in it, or JSON lines."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    table = []
    for index, (question, answer, colours) in enumerate(rows):
        images = []
        for place, colour in enumerate(colours):
            name = f"{index}_{place}.png"
            if kind == "parquet":
                images.append({"bytes": png(colour), "path": name})
            else:
                (Path(folder) / name).write_bytes(png(colour))
                images.append(name)
        question = "<image>" * len(colours) + question
        table.append({"id": index, "problem": question, "answer": answer, "images": images})
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(table), Path(folder) / f"{split}.parquet")
    else:
        lines = "".join(json.dumps(row) + "\n" for row in table)
        (Path(folder) / f"{split}.jsonl").write_text(lines)
    return Path(folder)


def _write_pictures(archive, pictures, *, extracted):
    if not extracted:
        write_zip(archive, pictures)
        return
    for name, content in pictures.items():
        file = archive.with_suffix("") / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
