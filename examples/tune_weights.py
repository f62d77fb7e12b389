"""Search the loss weights of a distiller with KerasTuner, on degraded digits.

    python examples/tune_weights.py

Weights are chosen by the accuracy on validation rows. Prints the best trials, and the
test accuracy of two students: one trained with the weights found, the other with those
of `keras_dskd.dskd`. Each is trained only once, so part of the difference is chance. To
continue an interrupted search, use the same `--out`.
"""

import argparse

import digits
import keras
from models import cnn
from sklearn.model_selection import train_test_split
from training import train

import keras_dskd

try:
    import keras_tuner
except ImportError as error:
    raise SystemExit("KerasTuner is missing: pip install keras-tuner") from error

SHAPE, WIDTHS = (8, 8, 1), (16, 32, 64)
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def search(teacher, student, x, y, x_val, y_val, *, epochs, trials, out):
    """Bayesian optimization of the weights.

    Args:
        teacher: A trained model, with the layers `block2` and `features`.
        student: Function without arguments that returns a student with these layers.
        x: `{"teacher": ..., "student": ...}`.
        y: Labels.
        x_val: The weak modality of the validation rows.
        y_val: Their labels.
        epochs: Epochs of each training.
        trials: Number of trainings.
        out: Folder of the trials.

    Returns:
        A `keras_tuner.Tuner`.
    """

    def distiller(hp):
        made = keras_dskd.dskd(teacher, student(), "features", "block2")
        made.student_loss_weight = hp.Float("student_loss", 0.1, 0.9)
        for index, term in enumerate(["soft_targets", "independence", "uniformity"]):
            weight = hp.Float(term, 0.01, 10.0, sampling="log")
            made.distillation_loss_weights[index] = weight
        made.saves_teacher = False  # The tuner writes one checkpoint per trial.
        made.compile(keras.optimizers.AdamW(3e-3), LOSS, metrics=["accuracy"])
        return made

    tuner = keras_tuner.BayesianOptimization(
        distiller, "val_accuracy", trials, seed=0, directory=out, project_name="dskd"
    )
    tuner.search(x, y, epochs=epochs, validation_data=(x_val, y_val), verbose=0)
    return tuner


def main():
    """Trains the teacher, searches, and compares."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--out", default="out/tune_weights")
    arguments = parser.parse_args()
    keras.utils.set_random_seed(0)
    data = digits.load()

    def student():
        return cnn(SHAPE, data.classes, WIDTHS, "student")

    teacher = cnn(SHAPE, data.classes, WIDTHS, "teacher")
    train(
        teacher,
        data.strong_train,
        data.y_train,
        seed=0,
        epochs=arguments.epochs,
        batch_size=50,
    )
    strong, strong_val, weak, weak_val, y, y_val = train_test_split(
        data.strong_train,
        data.weak_train,
        data.y_train,
        test_size=200,
        stratify=data.y_train,
        random_state=0,
    )
    x = {"teacher": strong, "student": weak}
    tuner = search(
        teacher,
        student,
        x,
        y,
        weak_val,
        y_val,
        epochs=arguments.epochs,
        trials=arguments.trials,
        out=arguments.out,
    )
    tuner.results_summary(3)
    found = tuner.hypermodel.build(tuner.get_best_hyperparameters()[0])
    usual = keras_dskd.dskd(teacher, student(), "features", "block2")
    x = {"teacher": data.strong_train, "student": data.weak_train}
    for name, made in (("found", found), ("usual", usual)):
        made.compile(keras.optimizers.AdamW(3e-3), LOSS, metrics=["accuracy"])
        made.fit(x, data.y_train, epochs=arguments.epochs, verbose=0)
        tested = made.evaluate(data.weak_test, data.y_test, verbose=0, return_dict=True)
        print(f"Test accuracy with the {name} weights: {tested['accuracy']:.2%}")
        print(made)


if __name__ == "__main__":
    main()
