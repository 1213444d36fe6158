"""Trickled candidates, and names where an address should stand."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import IngestError
from app.ingest.sdpfrag import Fragment, fragment, is_name, trickling

HOST = "842163049 1 udp 1677729535 192.0.2.7 3478 typ srflx raddr 0.0.0.0 rport 0"
HIDDEN = "1 1 udp 2113937151 3f4c-88aa.local 50000 typ host generation 0"


def test_candidates_come_with_their_media_and_the_session_that_they_belong_to():
    text = f"a=ice-ufrag:EsAw\r\na=ice-pwd:x\r\nm=audio 9 RTP/AVP 0\r\na=mid:0\r\na=candidate:{HOST}\r\n"
    assert fragment(text + "a=end-of-candidates\r\n") == Fragment("EsAw", ((HOST, "0"),), True)


@pytest.mark.parametrize(
    "text", ["a=candidate:1 2 3", "nonsense", "a=candidate:", "x" * 20_000, "a=x\n" * 500]
)
def test_what_is_no_fragment_is_refused(text):
    with pytest.raises(IngestError, match="expected"):
        fragment(text)


def test_candidates_that_hide_behind_a_name_are_left_out_and_the_peer_is_still_waited_for():
    assert is_name(HIDDEN)
    assert not is_name(HOST)
    sdp = f"v=0\r\na=candidate:{HIDDEN}\r\na=candidate:{HOST}\r\na=end-of-candidates\r\na=mid:0\r\n"
    assert trickling(sdp) == f"v=0\r\na=candidate:{HOST}\r\na=mid:0\r\n"


@given(
    st.text(max_size=300)
    | st.lists(st.sampled_from(["a=candidate:", "a=mid:0", HOST, HIDDEN]), max_size=9).map("\n".join)
)
def test_no_text_whatever_raises_anything_else(text):
    with contextlib.suppress(IngestError):
        fragment(text)
    trickling(text)
