"""A session with webhooks, as the core sees the session."""

from __future__ import annotations

from typing import Any

from fhircast_hub.core.access.principal import SessionKey
from fhircast_hub.core.rules.webhook_outbox import connection_name
from fhircast_hub.core.state.commands import Connected
from fhircast_hub.core.state.effects import EndWebhook, Post, Verify
from fhircast_hub.core.state.session import Subscription
from tests.core.world import TOPIC, World, label

CALLBACK = "https://app.example/callback"
PATIENT = "Patient-open,Patient-close"
KEY = SessionKey("a-realm", TOPIC)


class Hooked(World):
    """A world with webhooks."""

    def ask(self, subscription_id: str, events: str = PATIENT, callback: str = CALLBACK, **more: Any) -> None:
        """A webhook asks for a subscription."""
        self.subscribe(subscription_id, events, callback=callback, **more)

    def hook(self, subscription_id: str, events: str = PATIENT, callback: str = CALLBACK, **more: Any) -> None:
        """A webhook asks for a subscription, and is verified. Both are at one node."""
        self.ask(subscription_id, events, callback, **more)
        self.do(Connected(subscription_id, connection_name(subscription_id)), more.get("node"))

    def done(self) -> list[Verify | Post | EndWebhook]:
        """The work for callbacks since the last call."""
        done, self.webhook_effects = self.webhook_effects, []
        return done

    def posts(self) -> list[Post]:
        """The deliveries among the work."""
        return [effect for effect in self.done() if isinstance(effect, Post)]

    def posted(self) -> list[tuple[str, str]]:
        """The callback and event of each delivery."""
        return [(post.subscription_id, label(post.frame)) for post in self.posts()]

    def drops(self) -> list[EndWebhook]:
        """The ended subscriptions among the work."""
        return [effect for effect in self.done() if isinstance(effect, EndWebhook)]

    def waiting(self) -> list[tuple[str, str]]:
        """The outbox."""
        assert self.session is not None
        posts = {number: post for queue in self.session.outbox.values() for number, post in queue.posts.items()}
        assert [sum(len(post.frame) for post in queue.posts.values()) for queue in self.session.outbox.values()] == [
            queue.size for queue in self.session.outbox.values()
        ]
        return [(post.subscription_id, label(post.frame)) for _, post in sorted(posts.items())]

    def subscriptions(self) -> dict[str, Subscription]:
        return self.session.subscriptions if self.session else {}

    def restart(self) -> None:
        """As World.restart. Effects from before are forgotten."""
        self.done()
        super().restart()
