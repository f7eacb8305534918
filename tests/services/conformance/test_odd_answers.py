"""Design rule 12 over the whole registry: an answer that contains a usable image or text never leads to another paid
call. Each connector's own odd answers are tried by the conformance suite."""

from __future__ import annotations

from types import ModuleType
from typing import Final

from emp_trio.services.registry import connectors
from emp_trio.testing.conformance import ConnectorConformance
from tests.services.conformance import test_a1111, test_comfyui, test_gemini, test_ollama, test_openai, test_simulations
from tests.services.rest import test_conformance as test_rest

_MODULES: Final[tuple[ModuleType, ...]] = (
    test_a1111,
    test_comfyui,
    test_gemini,
    test_ollama,
    test_openai,
    test_simulations,
    test_rest,
)
_OTHERWISE: Final = {
    "LimitedServiceConnector": "its answer is the result, and which are none stands in tests/services/test_limited.py",
    "SimulationWebsocketConnector": "its messages: tests/services/simulation/test_messages.py",
}


def test_every_connector_of_a_service_has_odd_answers_to_stand() -> None:
    suites = {
        suite
        for module in _MODULES
        for suite in vars(module).values()
        if isinstance(suite, type) and issubclass(suite, ConnectorConformance) and hasattr(suite, "connector")
    }
    paid = {suite for suite in suites if suite.open_service is not ConnectorConformance.open_service}
    odd = {suite.connector.__name__ for suite in paid if suite.odd is not ConnectorConformance.odd}
    alone = {suite.connector.__name__ for suite in suites - paid}
    assert {connector.name for connector in connectors()} == odd | alone | _OTHERWISE.keys()
    assert not odd & _OTHERWISE.keys()
