"""A place: its name, links and devices, and that what a string opened is closed."""

import copy
import gc
import pickle

import pytest

from qiskit_qattn import get_backend
from qiskit_qattn.backends.place import Place, PlaceReference, Sessions, session, settled, wait_until_closed
from qiskit_qattn.backends.registry import Backend
from qiskit_qattn.errors import BackendError, UnknownNameError

CHAIN = "statevector?seed=1&shots=8 -> density_matrix -> classical"


class Device:
    """Has a session open, counts how often that is closed, and may fail to close it."""

    def __init__(self, error=None):
        self.open, self.closed, self.error = True, 0, error

    def close(self):
        was_open, self.open = self.open, False
        self.closed += was_open
        if was_open and self.error is not None:
            raise self.error


class Estimator:
    budget = None

    def __init__(self, device):
        self.device = device


def opened(*devices):
    """Return a place on devices as a string would open it."""
    backends = [Backend(f"disk:{number}", Estimator(device)) for number, device in enumerate(devices)]
    return Place(tuple((each.name, each) for each in backends), sessions=Sessions(backends))


@pytest.mark.parametrize("text", ["statevector", "statevector?seed=1&shots=8", CHAIN, "statevector -> classical"])
def test_its_name_is_the_string_in_normal_form(text):
    place = Place.open(text)
    assert place.name == text and Place.of(place) is place
    assert [each.name for each in place.backends] == text.removesuffix(" -> classical").split(" -> ")


def test_a_single_backend_is_a_place_of_its_own():
    backend = get_backend("statevector")
    place = Place.of(backend)
    assert place.single is backend and place.name == "statevector" and place.sessions is None
    assert Place.open("statevector -> raise").single is not None
    assert Place.open("statevector -> classical").single is None
    assert Place.open("statevector -> statevector").single is None


def test_it_says_how_its_links_compute():
    exact, sampled = Place.open("statevector -> density_matrix"), Place.open(CHAIN)
    assert exact.differentiable and not exact.samples
    assert sampled.samples and not sampled.differentiable
    device = Device()
    assert exact.devices == [] and [each.device for _, each in opened(device).devices] == [device]


def test_a_link_that_cannot_be_opened_is_listed_with_its_error():
    place = Place((("gone", BackendError("It is gone.")), *Place.open("statevector").links))
    assert place.name == "gone -> statevector" and [each.name for each in place.backends] == ["statevector"]
    assert place.single is None
    with pytest.raises(UnknownNameError, match="statevectr"):
        Place.open("statevector -> statevectr")


def test_the_last_holder_closes_it():
    device = Device()
    place = opened(device)
    other = copy.copy(place)
    del place
    gc.collect()
    wait_until_closed()
    assert device.closed == 0
    del other
    gc.collect()
    wait_until_closed()
    assert device.closed == 1


def test_a_block_closes_all_and_raises_the_first_error(caplog):
    first, last = Device(BackendError("It does not answer.")), Device()
    with pytest.raises(BackendError, match="does not answer"), opened(first, last):
        pass
    assert (first.closed, last.closed) == (1, 1)
    first.open = True
    with pytest.raises(ZeroDivisionError), opened(first, last):
        raise ZeroDivisionError
    assert caplog.messages[:1] == ["disk:0 could not be closed: It does not answer."]
    device = Device()
    with session(Backend("disk", Estimator(device))) as backend:
        assert (backend.name, device.closed) == ("disk", 0)
    assert device.closed == 1


def test_a_reference_returns_to_the_same_place_and_keeps_nothing_open():
    device = Device()
    place = opened(device)
    reference = PlaceReference(place)
    assert reference() is place
    links = place.links
    del place
    gc.collect()
    wait_until_closed()
    assert device.closed == 1
    again = reference()
    assert again.links is links and reference() is again and again.sessions is not None
    device.open = True  # by its next job
    again.close()
    assert device.closed == 2
    mine = Place.of(get_backend("statevector"))
    assert PlaceReference(mine)().sessions is None


def test_it_can_be_copied_and_pickled():
    place = Place.open("statevector?method=dense -> classical")
    assert copy.deepcopy(place).sessions is place.sessions
    assert pickle.loads(pickle.dumps(place)).name == place.name


@pytest.mark.parametrize(
    ("given", "recorded", "goes_on"),
    [
        ("ibm:least_busy?shots=9", "ibm:ibm_fez?shots=9", True),
        ("ibm:least_busy?shots=9&mode=job -> statevector", "ibm:ibm_fez?mode=job&shots=9 -> statevector", True),
        ("ibm:least_busy", "ibm:least_busy", False),
        ("ibm:least_busy?shots=9", "ibm:ibm_fez?shots=8", False),
        ("ibm:least_busy", "ibm:ibm_fez -> statevector", False),
        ("ibm:least_busy -> classical", "ibm:ibm_fez", False),
        ("ibm:ibm_fez", "ibm:ibm_torino", False),
        ("braket:least_busy", "braket:sv1", False),
        ("statevector", "ibm:ibm_fez", False),
    ],
)
def test_a_choice_goes_on_with_the_device_that_was_recorded(given, recorded, goes_on):
    assert settled(given, recorded) == (recorded if goes_on else given)
