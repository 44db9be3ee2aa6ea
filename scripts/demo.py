"""Train on 30 people of the ORL faces, and verify on the other 10.

The program prepares data/orl-112x96, trains configs/demo.yaml, and runs the ten-fold protocol on
pairs of people that are not in the training set. It prints the accuracy of comparing pixels on the
same pairs beside the result.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from sphereface.config import load_config
from sphereface.data.orl import pixel_features, prepare_orl
from sphereface.errors import reports_user_errors
from sphereface.evaluation import PairsResult, Report, evaluate, format_table, load_pair_set, write_report
from sphereface.losses.margins import MARGINS
from sphereface.models import BACKBONES, load_model
from sphereface.plugins import load_plugins
from sphereface.training.run import run_training
from sphereface.training.run_folder import RunFolder


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Prepare the data, train, evaluate and compare."""
    load_plugins()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", metavar="DIR", type=Path, default=Path("data/orl-112x96"))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    args = parser.parse_args(argv)

    orl = prepare_orl(args.data)
    sets = f"eval.sets={{orl: {{images: '{orl.verify}', pairs: '{orl.pairs}'}}}}"
    overrides = [f"data.train={orl.train}", sets, *args.overrides]
    config = load_config("demo.yaml", overrides, losses=MARGINS, backbones=BACKBONES)
    done = RunFolder.newest(config, finished=True)
    if done is None:
        checkpoint = run_training("demo.yaml", overrides, resume="auto")
    else:
        checkpoint = done.result(config)
        print(f"trained before: {checkpoint} (remove {done.path} to train again)")

    pair_set = load_pair_set("ORL, 10 people not in training", orl.verify, orl.pairs)
    loaded = load_model(checkpoint)
    result = evaluate(loaded.model, pair_set, device="cpu")
    assert isinstance(result, PairsResult)
    outcome = result.verification
    report = Report(pair_set.name, pair_set.images, (result,), about={"checkpoint": str(checkpoint)})
    output = checkpoint.parent / "eval-pairs"
    write_report(report, output)
    pixels = pair_set.verify(pixel_features(pair_set.images.found()))

    print(f"\n{format_table(report)}\n")
    print(f"{'comparing pixels':32}{pixels.mean:7.2%} ± {pixels.standard_error:.2%}")
    print(f"{'this network':32}{outcome.mean:7.2%} ± {outcome.standard_error:.2%}")
    print(f"\nROC image: {output / 'roc.png'}\n\nnext:")
    print(f"  .venv/bin/tensorboard --logdir {checkpoint.parents[1]}")
    print(f"  .venv/bin/python eval_lfw.py --ckpt {checkpoint} --lfw {orl.verify} --pairs {orl.pairs}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
