"""The fleet's gateway, its planner and its agents before the orchestrator: calls by stubs that grpcio-tools generated from the fleet's
own definition (fleet/orchestrator.proto, not ours), events by nats-py. Exits with 1 and says what is wrong if something is not as
the fleet knows it.

    python orchestrator.py --nats nats://127.0.0.1:4222 --grpc 127.0.0.1:50055
"""

import argparse
import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path

import grpc
import nats
import stubs

pb, pb_grpc = stubs.load("fleet/orchestrator.proto", Path(__file__).resolve().parent)

PATIENCE = 60
COMPLETED = "orchestration.deliberation.completed"
TASK = "Description: a checkout\nAcceptance criteria:\n- an order is stored once\n- a receipt is mailed\n"


def equal(what: str, found, expected):
    assert found == expected, f"{what}: {found!r}, and {expected!r} was expected"


class Heard:
    """What the orchestrator tells, as it comes."""

    def __init__(self):
        self.messages = []
        self.news = asyncio.Condition()

    async def take(self, message):
        async with self.news:
            body = json.loads(message.data)
            # As the fleet's newer readers and its older ones have it.
            equal("the event's type", body["event_type"], message.subject)
            equal("the mirror", body["task_id"], body["payload"]["task_id"])
            assert body["idempotency_key"] and body["correlation_id"] and body["producer"], body
            datetime.fromisoformat(body["timestamp"])
            self.messages.append((message.subject, body["payload"]))
            self.news.notify_all()

    def there(self, subject: str, task_id: str):
        return [payload for at, payload in self.messages if (at, payload["task_id"]) == (subject, task_id)]

    async def of(self, subject: str, task_id: str, count: int = 1):
        async with self.news:
            enough = self.news.wait_for(lambda: len(self.there(subject, task_id)) >= count)
            await asyncio.wait_for(enough, PATIENCE)
        return self.there(subject, task_id)


def constraints():
    return pb.TaskConstraints(
        rubric="Correct first, then short.",
        requirements=["store an order once", "mail a receipt"],
        metadata={"source": "gateway"},
        max_iterations=3,
        timeout_seconds=60,
    )


def is_judged(result, role: str):
    """A result as the user interface shows it."""
    proposal, checks = result.proposal, result.checks
    equal("its author's role", proposal.author_role, role)
    assert proposal.author_id and proposal.content and proposal.created_at_ms > 1_700_000_000_000, proposal
    all_passed = checks.policy.passed and checks.lint.passed and checks.dryrun.passed
    equal("all passed", checks.all_passed, all_passed and all(more.passed for more in checks.additional_checks))
    equal("its exit code", checks.dryrun.exit_code == 0, checks.dryrun.passed)
    passed = [checks.policy.passed, checks.lint.passed, checks.dryrun.passed]
    assert abs(result.score - sum(passed) / 3) < 1e-9, result


class Gateway:
    def __init__(self, channel, client, heard: Heard):
        self.orchestrator = pb_grpc.OrchestratorServiceStub(channel)
        self.client = client
        self.heard = heard

    async def publish(self, subject: str, **payload):
        await self.client.jetstream().publish(subject, json.dumps(payload).encode())

    async def refused(self, code: grpc.StatusCode, call, request):
        try:
            await call(request)
        except grpc.aio.AioRpcError as error:
            equal(f"{request}", error.code(), code)
            assert error.details(), f"{request}: no word of why"
            return error.details()
        raise AssertionError(f"{request} was taken")

    async def council_of_five_roles(self):
        status = await self.orchestrator.GetStatus(pb.GetStatusRequest(include_stats=True))
        equal("its health", status.status, "healthy")
        listed = (await self.orchestrator.ListCouncils(pb.ListCouncilsRequest(include_agents=True))).councils
        equal("the councils", sorted(c.role for c in listed), ["ARCHITECT", "DATA", "DEV", "DEVOPS", "QA"])
        for council in listed:
            equal("its agents", (council.num_agents, len(council.agents)), (3, 3))
            assert council.council_id and council.status, council
        [qa] = (await self.orchestrator.ListCouncils(pb.ListCouncilsRequest(role_filter="QA"))).councils
        equal("the one that was asked for", (qa.role, qa.num_agents, len(qa.agents)), ("QA", 3, 0))

    async def deliberate(self):
        request = pb.DeliberateRequest(
            task_id="t-1", task_description=TASK, role="DEV", constraints=constraints(), rounds=2, num_agents=3
        )
        key = (("idempotency-key", "k-1"),)
        answer = await self.orchestrator.Deliberate(request, metadata=key)
        equal("the task", answer.task_id, "t-1")
        equal("the ranks", [result.rank for result in answer.results], [1, 2, 3])
        scores = [result.score for result in answer.results]
        equal("best first", scores, sorted(scores, reverse=True))
        equal("authors", len({result.proposal.author_id for result in answer.results}), 3)
        equal("the winner", answer.winner_id, answer.results[0].proposal.author_id)
        for result in answer.results:
            is_judged(result, "DEV")
        assert answer.duration_ms >= 0 and answer.metadata.execution_id, answer.metadata
        assert answer.metadata.orchestrator_version and answer.metadata.timestamp_ms > 1_700_000_000_000
        # As a client does that has lost the answer.
        equal("the repeat", await self.orchestrator.Deliberate(request, metadata=key), answer)
        [told] = await self.heard.of(COMPLETED, "t-1")
        equal("what is told", (told["status"], told["winner_id"]), ("completed", answer.winner_id))
        [decision] = told["decisions"]
        assert decision["id"] and decision["type"] and decision["rationale"], decision
        kept = await self.orchestrator.GetDeliberationResult(pb.GetDeliberationResultRequest(task_id="t-1"))
        equal("its status", kept.status, pb.DELIBERATION_STATUS_COMPLETED)
        equal("what is kept", (kept.winner_id, len(kept.results)), (answer.winner_id, 3))

    async def orchestrate(self):
        request = pb.OrchestrateRequest(
            task_id="t-2",
            task_description=TASK,
            role="developer",
            constraints=constraints(),
            options=pb.OrchestrateRequest.Options(
                enable_peer_review=True,
                deliberation_rounds=1,
                enable_architect_selection=True,
                custom_params={"theme": "dark"},
            ),
            case_id="case-1",
            story_id="story-1",
            plan_id="plan-1",
            context_options=pb.OrchestrateRequest.ContextOptions(),
        )
        answer = await self.orchestrator.Orchestrate(request)
        is_judged(answer.winner, "DEV")
        authors = [candidate.proposal.author_id for candidate in answer.candidates]
        equal("the others", len(authors), 2)
        assert answer.winner.proposal.author_id not in authors, authors
        assert answer.execution_id, answer
        [told] = await self.heard.of(COMPLETED, "t-2")
        equal("its story", told["story_id"], "story-1")
        equal("its winner", told["winner_id"], answer.winner.proposal.author_id)

    async def councils(self):
        create = pb.CreateCouncilRequest(
            role="PO",
            num_agents=2,
            config=pb.CreateCouncilRequest.Config(deliberation_rounds=1, enable_peer_review=True, agent_type="MOCK"),
        )
        created = await self.orchestrator.CreateCouncil(create)
        equal("created", (created.agents_created, len(created.agent_ids)), (2, 2))
        assert created.council_id, created
        await self.refused(grpc.StatusCode.ALREADY_EXISTS, self.orchestrator.CreateCouncil, create)
        # The council's own number counts.
        asked = pb.DeliberateRequest(task_id="t-3", task_description=TASK, role="PO")
        answer = await self.orchestrator.Deliberate(asked)
        authors = sorted(result.proposal.author_id for result in answer.results)
        equal("its authors", authors, sorted(created.agent_ids))

    async def refusals(self):
        invalid, missing = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
        deliberate = self.orchestrator.Deliberate
        for fields, code in [
            ({"task_id": "t-9", "task_description": TASK, "role": ""}, invalid),
            ({"task_id": "t-9", "task_description": "", "role": "DEV"}, invalid),
            ({"task_id": "", "task_description": "", "role": "DEV"}, invalid),
            ({"task_id": "t-9", "task_description": TASK, "role": "SYSTEM"}, missing),
        ]:
            await self.refused(code, deliberate, pb.DeliberateRequest(**fields))
        orchestrate = self.orchestrator.Orchestrate
        named = await self.refused(
            missing, orchestrate, pb.OrchestrateRequest(task_id="t-9", task_description=TASK, role="SYSTEM")
        )
        assert "DEV" in named, f"the councils that there are: {named}"
        unserved = grpc.StatusCode.UNIMPLEMENTED
        await self.refused(unserved, self.orchestrator.RegisterAgent, pb.CreateCouncilRequest(role="DEV"))
        equal("what is told of those", self.heard.there(COMPLETED, "t-9"), [])

    async def agents_that_answer(self):
        """As the fleet's workers write it."""
        for number in (1, 2, 3):
            await self.publish(
                "agent.response.completed",
                task_id="t-4",
                agent_id=f"agent-{number}",
                role="DEV",
                status="completed",
                duration_ms=1200,
                timestamp=datetime.now(UTC).isoformat() + "Z",
                proposal={"content": f"Proposal {number}: store it once, then mail it.", "author_id": f"agent-{number}"},
                num_agents=3,
                constraints={"story_id": "story-4", "metadata": {"task_id": "t-4", "num_agents": 3}},
            )
        [told] = await self.heard.of(COMPLETED, "t-4")
        equal("its story", told["story_id"], "story-4")
        equal("who answered", (told["total_agents"], told["successful_responses"], told["failed_responses"]), (3, 3, 0))
        kept = await self.orchestrator.GetDeliberationResult(pb.GetDeliberationResultRequest(task_id="t-4"))
        equal("its status", kept.status, pb.DELIBERATION_STATUS_COMPLETED)
        equal("its results", len(kept.results), 3)

    async def a_plan(self):
        await self.publish(
            "planning.plan.approved",
            plan_id="plan-5",
            story_id="story-5",
            approved_by="ann",
            roles=["DEV", "NOBODY"],
            timestamp=datetime.now(UTC).isoformat(),
        )
        [approved] = await self.heard.of("orchestration.plan.approved", "plan-5")
        equal("the plan", (approved["plan_id"], approved["story_id"]), ("plan-5", "story-5"))
        told = await self.heard.of(COMPLETED, "plan-5", 2)
        # The role without a council fails alone.
        equal("its roles", sorted(one["status"] for one in told), ["completed", "failed"])


async def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--nats", required=True)
    arguments.add_argument("--grpc", required=True)
    options = arguments.parse_args()
    client = await nats.connect(options.nats)
    heard = Heard()
    await client.subscribe("orchestration.>", cb=heard.take)
    await client.flush()
    async with grpc.aio.insecure_channel(options.grpc) as channel:
        gateway = Gateway(channel, client, heard)
        await gateway.council_of_five_roles()
        await asyncio.gather(gateway.deliberate(), gateway.orchestrate())
        await gateway.councils()
        await gateway.refusals()
        await asyncio.gather(gateway.agents_that_answer(), gateway.a_plan())
    # Whatever came twice came by now: the stream has been read to its end.
    stored = await client.jetstream().stream_info("ORCHESTRATOR_EVENTS")
    equal("events, heard and stored", len(heard.messages), stored.state.messages)
    print(json.dumps({"completed": sum(subject == COMPLETED for subject, _ in heard.messages)}))
    await client.close()


if __name__ == "__main__":
    asyncio.run(main())
