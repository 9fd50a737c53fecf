"""Queues and handlers by the versions a claim names: what is cached may be old, what is used never is."""

from dataclasses import dataclass, field

from app.store import handlers, queues
from app.store.db import Database
from app.store.handlers import Target
from app.store.queues import Policy
from app.store.tasks import Claim
from app.store.vault import Vault
from app.telemetry import events
from app.telemetry.logs import get_logger

log = get_logger(__name__)


@dataclass(slots=True)
class Catalogue:
    db: Database
    vault: Vault
    policies: dict[int, Policy] = field(default_factory=dict)
    targets: dict[int, Target] = field(default_factory=dict)

    async def of(self, queue_id: int, claim: Claim) -> tuple[Policy, Target]:
        """Raises Unavailable."""
        policy = self.policies.get(queue_id)
        if policy is None or policy.version != claim.queue_version:
            policy = await queues.load_policy(self.db, queue_id)
            assert policy is not None, "queues are marked deleted, never removed"
            self.policies[queue_id] = policy
        target = self.targets.get(claim.handler_id)
        if target is None or target.version != claim.handler_version:
            target = await handlers.load_target(self.db, self.vault, claim.handler_id)
            assert target is not None, "handlers are marked deleted, never removed"
            if target.secrets_lost:
                events.emit(log, events.HANDLER_SECRETS_LOST, tenant=policy.tenant, handler=target.name)
            self.targets[claim.handler_id] = target
        return policy, target
