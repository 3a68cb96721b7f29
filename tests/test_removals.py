"""The removals still fit the code: a piece that is no longer there would be taken out of nothing, and seen only by hand."""

import pytest

from tests.removals import REMOVALS
from tests.removals.words import Removal
from tests.sim.mutation import planted


@pytest.mark.parametrize("removal", REMOVALS, ids=lambda removal: f"{removal.rule} {removal.edits[0].where}")
def test_a_removal_fits_the_code(removal: Removal) -> None:
    with planted(*removal.edits):
        pass
