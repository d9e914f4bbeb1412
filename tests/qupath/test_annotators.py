from __future__ import annotations

from pathlib import Path

from shapely import box

from qpannot.qupath import Annotation, PathClass, open_project
from qpannot.qupath.annotators import (
    ANNOTATOR,
    annotated_by,
    annotator_of,
    by_annotator,
    copied_for,
)
from qpannot.qupath.proposals import Origin, is_proposal, make_proposal

TUMOR = PathClass("Tumor")


def test_the_name_of_an_annotator_is_kept_in_the_project(project_folder: Path) -> None:
    drawn = Annotation(box(0, 0, 9, 9), path_class=TUMOR, metadata={"note": "pale"})
    with open_project(project_folder, "r+") as project:
        project.images[0].write_annotations(add=[drawn, copied_for(drawn, "Zoë Ä.")])
    with open_project(project_folder) as project:
        of_all, of_one = project.images[0].annotations()
        assert annotator_of(of_all) == "" and annotator_of(of_one) == "Zoë Ä."
        assert of_one.metadata == {"note": "pale", ANNOTATOR: "Zoë Ä."}
        assert of_one.geometry.equals(of_all.geometry) and of_one.class_name == "Tumor"
        assert by_annotator(project.images[0].annotations()) == {
            "": (of_all,),
            "Zoë Ä.": (of_one,),
        }


def test_a_persons_version_of_a_proposal_is_no_proposal() -> None:
    proposal = make_proposal(box(0, 0, 9, 9), TUMOR, Origin(1, "AN1", score=0.5), locked=False)
    own = annotated_by(proposal, "B")
    assert is_proposal(proposal) and not is_proposal(own)
    assert own.metadata == {ANNOTATOR: "B"} and own.id == proposal.id


def test_two_persons_versions_are_told_apart_and_made_the_same_again() -> None:
    drawn = Annotation(box(0, 0, 9, 9), path_class=TUMOR)
    b, c = copied_for(drawn, "B"), copied_for(drawn, "C")
    assert len({drawn.id, b.id, c.id}) == 3
    assert copied_for(drawn, "B").id == b.id
    assert copied_for(b, "B") is b
