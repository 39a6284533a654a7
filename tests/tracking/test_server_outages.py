"""What is asked of an MLflow server twice is done once; on a client that loses answers."""

import pytest
from mlflow.exceptions import MlflowException, RestException

from hemaml.tracking.outages import MOST_RETRIES, num_retries, once


@pytest.mark.parametrize(
    ("seconds", "retries"),
    [(0, 1), (4, 2), (5, 3), (12, 3), (30, 5), (240, 7), (1e9, MOST_RETRIES)],
)
def test_pauses_between_retries_add_up_to_the_wait(seconds, retries):
    """urllib3 pauses 0, 4, 8, 16, ... s, at most 120, with MLflow's factor of 2."""
    assert num_retries(seconds) == retries


class Client:
    """Makes things with tags; `answers` says of each request whether its answer arrives."""

    def __init__(self, *answers, carried_out=True):
        self.answers = list(answers)
        self.carried_out = carried_out
        self.made = []

    def create(self, tags):
        arrives = self.answers.pop(0) if self.answers else True
        if arrives or self.carried_out:
            self.made.append(tags["request"])
        if not arrives:
            raise MlflowException("API request to /runs/create failed with exception: timed out")
        return self.made[-1]

    def find(self, query):
        return next((tag for tag in self.made if query == f"tags.request = '{tag}'"), None)


@pytest.mark.parametrize("carried_out", [True, False])
@pytest.mark.parametrize("lost", [0, 1, 2])
def test_what_is_made_is_made_once_whichever_way_the_answer_was_lost(lost, carried_out):
    client = Client(*[False] * lost, carried_out=carried_out)
    made = once(client.create, client.find)
    assert client.made == [made]


def test_a_refusal_is_not_asked_again():
    asked = []

    def refuse(tags):
        asked.append(tags)
        raise RestException({"error_code": "INVALID_PARAMETER_VALUE", "message": "too long"})

    with pytest.raises(MlflowException, match="too long"):
        once(refuse, lambda query: None)
    assert len(asked) == 1
