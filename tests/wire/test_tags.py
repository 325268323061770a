"""The header with a call's tags: what it may say, and what a caller hears who says something else."""

import pytest

from gateway.billing.errors import InvalidRequest
from gateway.wire.tags import TAGS_MAX, tags_of


@pytest.mark.parametrize(
    ("sent", "tags"),
    [
        ([b"project=alpha"], ("project=alpha",)),
        ([b"project=alpha,env=prod"], ("env=prod", "project=alpha")),
        ([b" project=alpha ,\tenv=prod "], ("env=prod", "project=alpha")),
        ([b"project=alpha", b"env=prod"], ("env=prod", "project=alpha")),
        ([b"0=9,a.b-c_d=1.5-x_y"], ("0=9", "a.b-c_d=1.5-x_y")),
        ([b"n" * 40 + b"=" + b"v" * 40], ("n" * 40 + "=" + "v" * 40,)),
        ([b"a=x,b=x"], ("a=x", "b=x")),
    ],
)
def test_tags_come_by_their_names(sent: list[bytes], tags: tuple[str, ...]) -> None:
    """In whatever order and however many parts they were sent: alike tags are one row of a report."""
    assert tags == tags_of(sent)


@pytest.mark.parametrize(
    ("sent", "says"),
    [
        ([b""], "'' is no tag"),
        ([b"project"], "'project' is no tag"),
        ([b"project="], "is no tag"),
        ([b"=alpha"], "is no tag"),
        ([b"project=alpha,"], "'' is no tag"),
        ([b"Project=alpha"], "a-z, 0-9"),
        ([b"project=Alpha"], "a-z, 0-9"),
        ([b"project=a b"], "is no tag"),
        ([b"project=a=b"], "is no tag"),
        ([b"project=a|b"], "is no tag"),
        ([b"project=a:b"], "is no tag"),
        ([b"-a=b"], "beginning with a letter or a digit"),
        ([b"a=.b"], "beginning with a letter or a digit"),
        ([b"a=" + "é".encode("latin-1")], "is no tag"),
        ([b"a=b\n"], "is no tag"),
        ([b"n" * 41 + b"=v"], "1 to 40"),
        ([b"n=" + b"v" * 41], "1 to 40"),
        ([b"x" * 10_000], "is no tag"),
        ([b"a=1,a=2"], "names a twice"),
        ([b"a=1", b"a=1"], "names a twice"),
        ([b",".join(b"n%d=v" % number for number in range(9))], "9 tags; a call takes at most 8"),
    ],
)
def test_what_is_no_list_of_tags_is_refused(sent: list[bytes], says: str) -> None:
    """It names the header, what is wrong, and what would be right; a long value is not repeated whole."""
    with pytest.raises(InvalidRequest, match=says) as refused:
        tags_of(sent)
    assert ("x-gateway-tags", True) == (refused.value.param, len(refused.value.message) < 400)


def test_so_many_tags_are_taken() -> None:
    """The most there may be."""
    assert TAGS_MAX == len(tags_of([b",".join(b"n%d=v" % number for number in range(TAGS_MAX))]))
