"""The measures of `stdeconv_fast.evaluate`, one number at a time, in plain Python."""

from __future__ import annotations

import math


def pearson(x, y):
    x, y = list(x), list(y)
    mean_x, mean_y = math.fsum(x) / len(x), math.fsum(y) / len(y)
    both = math.fsum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return both / math.sqrt(math.fsum((a - mean_x) ** 2 for a in x) * math.fsum((b - mean_y) ** 2 for b in y))


def ranks(x):
    x = [round(a, 12) for a in x]
    return [sum(b < a for b in x) + (sum(b == a for b in x) + 1) / 2 for a in x]


def average_precision(score, present):
    score = [round(value, 12) for value in score]
    total, area, recall = sum(present), 0.0, 0.0
    for threshold in sorted(set(score), reverse=True):
        hits = [here for value, here in zip(score, present, strict=True) if value >= threshold]
        area += (sum(hits) / total - recall) * (sum(hits) / len(hits))
        recall = sum(hits) / total
    return area


def divergence(a, b):
    return sum(x * math.log2(x / y) for x, y in zip(a, b, strict=True) if x > 0)


def measures(p, t):
    """`p` and `t`: lists of rows that sum to 1, every type varying on both sides."""
    flat_p, flat_t = [x for row in p for x in row], [x for row in t for x in row]
    pairs, n = list(zip(flat_p, flat_t, strict=True)), len(flat_p)
    mean_t = math.fsum(flat_t) / n
    rest = math.fsum((a - b) ** 2 for a, b in pairs)
    rows = list(zip(p, t, strict=True))
    middle = [[(a + b) / 2 for a, b in zip(x, y, strict=True)] for x, y in rows]
    columns = list(zip(zip(*p, strict=True), zip(*t, strict=True), strict=True))
    return {
        "mse": rest / n,
        "mae": math.fsum(abs(a - b) for a, b in pairs) / n,
        "r2": 1 - rest / math.fsum((b - mean_t) ** 2 for b in flat_t),
        "pearson": pearson(flat_p, flat_t),
        "spearman": pearson(ranks(flat_p), ranks(flat_t)),
        "cosine": sum(
            sum(a * b for a, b in zip(x, y, strict=True)) / (math.hypot(*x) * math.hypot(*y)) for x, y in rows
        ) / len(rows),
        "rmse": math.sqrt(rest / n),
        "jsd": sum((divergence(x, m) + divergence(y, m)) / 2 for (x, y), m in zip(rows, middle, strict=True)) / len(p),
        "auprc": average_precision(flat_p, [b > 0 for b in flat_t]),
        "pearson_type": sum(pearson(x, y) for x, y in columns) / len(columns),
    }
