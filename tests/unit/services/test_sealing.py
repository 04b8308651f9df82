import pytest

from comfy_api_service.services.sealing import Sealer, Unreadable


def test_what_is_sealed_is_opened_for_its_account_by_its_key_alone() -> None:
    sealer = Sealer(b"k" * 32)
    sealed = sealer.seal(b"secret", "acc_1")
    assert b"secret" not in sealed
    assert sealed != sealer.seal(b"secret", "acc_1")
    assert Sealer(b"k" * 32).open(sealed, "acc_1") == b"secret"
    others = [(sealer, sealed, "acc_2"), (Sealer(b"l" * 32), sealed, "acc_1"), (sealer, sealed[:-1], "acc_1")]
    others += [(sealer, b"", "acc_1"), (sealer, b"\x02" + sealed[1:], "acc_1")]
    for opener, text, account in others:
        with pytest.raises(Unreadable):
            opener.open(text, account)
