"""A Python fleet's client of the executor: submits by a stub that grpcio-tools generated, polls, hears of the results by nats-py,
and ends a job as an operator does. Exits with 1 and says what is wrong if something is not as the fleet knows it.

    python executor.py --nats nats://127.0.0.1:4222 --grpc 127.0.0.1:50055 [--admin 127.0.0.1:8080]

With --admin the executor asks an endpoint that fails and holds on demand (`!401`, `!hang`); without it, any will do.
"""

import argparse
import asyncio
import json
from datetime import UTC, datetime

import grpc
import nats
import stubs

ray, ray_grpc = stubs.load("fleet/ray_executor/v1/ray_executor.proto")
admin, admin_grpc = stubs.load("cofferdam/admin/v1/jobs.proto")

PATIENCE = 60
PROMPT = "Description: a checkout\nAcceptance criteria:\n- an order is stored once\n"


def equal(what: str, found, expected):
    assert found == expected, f"{what}: {found!r}, and {expected!r} was expected"


def agents(*ids: str):
    return [ray.Agent(id=one, role="DEV", model="", prompt_template="") for one in ids]


class Heard:
    """All responses, as they come."""

    def __init__(self):
        self.messages = []
        self.news = asyncio.Condition()

    async def take(self, message):
        async with self.news:
            body = json.loads(message.data)
            # As the fleet's newer readers and its older ones have it.
            payload = body["payload"]
            equal("the mirror", body["task_id"], payload["task_id"])
            self.messages.append((message.subject, payload))
            self.news.notify_all()

    async def of(self, task_id: str, count: int):
        def there():
            return [(subject, payload) for subject, payload in self.messages if payload["task_id"] == task_id]

        async with self.news:
            await asyncio.wait_for(self.news.wait_for(lambda: len(there()) >= count), PATIENCE)
        return there()


class Client:
    def __init__(self, channel, heard: Heard):
        self.ray = ray_grpc.RayExecutorServiceStub(channel)
        self.heard = heard

    async def submit(self, task_id: str, *ids: str, prompt: str = PROMPT, key: str = "", **constraints):
        request = ray.ExecuteDeliberationRequest(
            task_id=task_id,
            task_description=prompt,
            role="DEV",
            constraints=ray.TaskConstraints(story_id="s-1", plan_id="p-1", **constraints),
            agents=agents(*ids),
            vllm_url="http://vllm-server-service:8000",
        )
        metadata = (("cofferdam-idempotency-key", key),) if key else ()
        answer = await self.ray.ExecuteDeliberation(request, metadata=metadata)
        equal("the task", answer.task_id, task_id)
        assert answer.deliberation_id and answer.status and answer.message, answer
        return answer.deliberation_id

    async def ends(self, deliberation: str):
        """Polls, as the fleet's orchestrator does."""
        deadline = asyncio.get_running_loop().time() + PATIENCE
        while True:
            request = ray.GetDeliberationStatusRequest(deliberation_id=deliberation)
            status = await self.ray.GetDeliberationStatus(request)
            if status.status != "running":
                return status
            assert asyncio.get_running_loop().time() < deadline, f"waited {PATIENCE} s for {deliberation}"
            await asyncio.sleep(0.02)

    async def refused(self, code: grpc.StatusCode, **fields):
        request = {"task_id": "t", "task_description": PROMPT, "role": "DEV", "agents": agents("a")} | fields
        try:
            await self.ray.ExecuteDeliberation(ray.ExecuteDeliberationRequest(**request))
        except grpc.aio.AioRpcError as error:
            equal(f"{fields}", error.code(), code)
            assert error.details(), f"{fields}: no word of why"
        else:
            raise AssertionError(f"{fields} were taken")

    async def one_agent(self):
        deliberation = await self.submit("derive-p-1", "task-deriver", metadata={"attempt": "1"}, timeout_seconds=120)
        status = await self.ends(deliberation)
        equal("its end", (status.status, status.error_message), ("completed", ""))
        equal("who answered", status.result.agent_id, "task-deriver")
        assert status.result.proposal, status
        equal("its metadata", status.result.metadata["attempt"], "1")
        [(subject, payload)] = await self.heard.of("derive-p-1", 1)
        equal("the subject", subject, "agent.response.completed")
        equal("the agents", payload["num_agents"], 1)
        equal("the deliberation", payload["deliberation_id"], deliberation)
        equal("the text", payload["proposal"]["content"], status.result.proposal)
        equal("the plan", payload["constraints"]["plan_id"], "p-1")
        datetime.fromisoformat(payload["timestamp"])

    async def three_agents(self):
        names = ("agent-1", "agent-2", "agent-3")
        # Twice with one key, as a client does that has lost the answer.
        twice = [await self.submit("t-3", *names, key="k-3") for _ in range(2)]
        equal("the repeat", twice[1], twice[0])
        status = await self.ends(twice[0])
        equal("its end", status.status, "completed")
        assert status.result.agent_id in names, status
        responses = await self.heard.of("t-3", 3)
        equal("who answered", sorted(payload["agent_id"] for _, payload in responses), sorted(names))
        for subject, payload in responses:
            equal("the subject", subject, "agent.response.completed")
            equal("the agents", payload["num_agents"], 3)
            equal("the deliberation", payload["deliberation_id"], twice[0])

    async def a_backlog_review(self):
        task_id = "ceremony-1:story-2:role-QA"
        request = ray.ExecuteBacklogReviewDeliberationRequest(
            task_id=task_id,
            task_description=PROMPT,
            role="QA",
            constraints=ray.BacklogReviewTaskConstraints(story_id="story-2"),
            agents=agents("reviewer"),
        )
        answer = await self.ray.ExecuteBacklogReviewDeliberation(request)
        equal("its end", (await self.ends(answer.deliberation_id)).status, "completed")
        [(_, payload)] = await self.heard.of(task_id, 1)
        equal("the story", payload["constraints"]["story_id"], "story-2")

    async def refusals(self):
        invalid = grpc.StatusCode.INVALID_ARGUMENT
        await self.refused(invalid, task_id="")
        await self.refused(invalid, agents=[])
        unknown = ray.GetDeliberationStatusRequest(deliberation_id="deliberation-1")
        equal("an unknown one", (await self.ray.GetDeliberationStatus(unknown)).status, "not_found")

    async def figures(self, completed: int):
        plain = await self.ray.GetStatus(ray.GetStatusRequest())
        assert plain.status == "healthy" and not plain.HasField("stats"), plain

        async def counted():
            stats = (await self.ray.GetStatus(ray.GetStatusRequest(include_stats=True))).stats
            return stats.completed_deliberations == completed and stats.active_deliberations == 0

        deadline = asyncio.get_running_loop().time() + PATIENCE
        while not await counted():
            assert asyncio.get_running_loop().time() < deadline, "the figures don't come right"
            await asyncio.sleep(0.05)
        equal("nothing runs", len((await self.ray.GetActiveJobs(ray.GetActiveJobsRequest())).jobs), 0)

    async def a_failure(self):
        status = await self.ends(await self.submit("t-fails", "a", prompt="!401 please"))
        equal("its end", status.status, "failed")
        assert status.error_message, status
        [(subject, payload)] = await self.heard.of("t-fails", 1)
        equal("the subject", subject, "agent.response.failed")
        assert payload["error"] and payload["error_type"], payload
        equal("the metadata", payload["metadata"]["task_id"], "t-fails")

    async def a_cancellation(self, jobs):
        deliberation = await self.submit("t-ends", "a", prompt="!hang")
        deadline = asyncio.get_running_loop().time() + PATIENCE
        while True:
            active = (await self.ray.GetActiveJobs(ray.GetActiveJobsRequest())).jobs
            if active:
                break
            assert asyncio.get_running_loop().time() < deadline, "nothing runs"
            await asyncio.sleep(0.02)
        [job] = active
        equal("what runs", (job.job_id, job.task_id, job.role), (deliberation, "t-ends", "DEV"))
        assert job.start_time.seconds > 0 and not job.HasField("end_time") and job.runtime, job
        answer = await jobs.Cancel(admin.CancelJobRequest(id=deliberation, wait_ms=30_000))
        equal("the job", answer.summary.state, "cancelled")
        equal("its end", (await self.ends(deliberation)).status, "failed")
        [(subject, payload)] = await self.heard.of("t-ends", 1)
        equal("the event", (subject, payload["error_type"]), ("agent.response.failed", "cancelled"))


async def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--nats", required=True)
    arguments.add_argument("--grpc", required=True)
    arguments.add_argument("--admin")
    options = arguments.parse_args()
    connection = await nats.connect(options.nats)
    heard = Heard()
    await connection.subscribe("agent.response.>", cb=heard.take)
    await connection.flush()
    async with grpc.aio.insecure_channel(options.grpc) as channel:
        client = Client(channel, heard)
        await asyncio.gather(client.one_agent(), client.three_agents(), client.a_backlog_review())
        await client.refusals()
        await client.figures(completed=5)
        if options.admin:
            async with grpc.aio.insecure_channel(options.admin) as way_in:
                jobs = admin_grpc.JobsStub(way_in)
                await client.a_failure()
                await client.a_cancellation(jobs)
                listed = [item.job async for item in jobs.List(admin.ListJobsRequest()) if item.HasField("job")]
                equal("the newest job", listed[0].task_id, "t-ends")
    # Whatever came twice came by now: the stream has been read to its end.
    stored = await connection.jetstream().stream_info("AGENT_RESPONSES")
    equal("responses, heard and stored", len(heard.messages), stored.state.messages)
    print(json.dumps({"responses": len(heard.messages)}))
    await connection.close()


if __name__ == "__main__":
    asyncio.run(main())
