"""A Python fleet's people and agents: drives a running daemon from a new story to TESTING, by nats-py and by clients that
grpcio-tools generated. Exits with 1 and says what is wrong if something is not as the fleet knows it.

    python drive.py --nats nats://127.0.0.1:4222 --grpc 127.0.0.1:50056
"""

import argparse
import asyncio
import json
from datetime import UTC, datetime

import grpc
import nats
import stubs

workflow, workflow_grpc = stubs.load("fleet/workflow/v1/workflow.proto")
planning, planning_grpc = stubs.load("fleet/planning/v2/planning.proto")

PLAN, STORY = "plan-7", "story-7"
PATIENCE = 60
FEEDBACK = "the second half has no tests at all"


async def until(what: str, ask):
    """Asks until there is an answer: what comes by events takes a moment."""
    deadline = asyncio.get_running_loop().time() + PATIENCE
    while True:
        answer = await ask()
        if answer:
            return answer
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(f"waited {PATIENCE} s for {what}")
        await asyncio.sleep(0.02)


class Fleet:
    def __init__(self, client, channel):
        self.client = client
        self.jetstream = client.jetstream()
        self.workflow = workflow_grpc.WorkflowOrchestrationServiceStub(channel)
        self.planning = planning_grpc.PlanningServiceStub(channel)

    async def publish(self, subject: str, payload: dict):
        await self.jetstream.publish(subject, json.dumps(payload).encode())

    # -- stories

    async def state(self) -> str:
        try:
            return (await self.planning.GetStory(planning.GetStoryRequest(story_id=STORY))).state
        except grpc.aio.AioRpcError as error:
            if error.code() == grpc.StatusCode.NOT_FOUND:
                return ""
            raise

    async def reaches(self, state: str):
        async def there():
            return await self.state() == state

        await until(f"the story in {state}", there)

    async def transition(self, state: str):
        request = planning.TransitionStoryRequest(story_id=STORY, target_state=state, transitioned_by="po-1")
        return await self.planning.TransitionStory(request)

    # -- tasks

    async def works(self, task: str, action: str, role: str, feedback: str = ""):
        """An agent that tells by NATS."""
        told = {
            "task_id": task,
            "story_id": STORY,
            "action": action,
            "actor_role": role,
            "agent_id": f"{role}-1",
            "timestamp": datetime.now(UTC).isoformat(),
            "artifacts": {"commit_sha": "4f2c9ab"},
        }
        if feedback:
            told["feedback"] = feedback
        await self.publish("agent.work.completed", told)

    async def asks(self, task: str, action: str, role: str, feedback: str = "", key: str = ""):
        """An agent that calls."""
        result = workflow.WorkResult(success=True, artifacts={"commit_sha": "4f2c9ab"}, feedback=feedback)
        request = workflow.RequestValidationRequest(
            task_id=task, role=role, action=action, result=result, agent_id=f"{role}-1"
        )
        metadata = (("idempotency-key", key),) if key else ()
        return await self.workflow.RequestValidation(request, metadata=metadata)

    async def at(self, task: str):
        return await self.workflow.GetWorkflowState(workflow.GetWorkflowStateRequest(task_id=task))

    async def pending(self, role: str, limit: int = 0, offset: int = 0):
        request = workflow.GetPendingTasksRequest(role=role, limit=limit, offset=offset)
        return await self.workflow.GetPendingTasks(request)

    async def task_reaches(self, task: str, state: str):
        async def there():
            return (await self.at(task)).current_state == state

        await until(f"{task} in {state}", there)


def equal(what: str, found, expected):
    assert found == expected, f"{what}: {found!r}, and {expected!r} was expected"


async def refused(what: str, code: grpc.StatusCode, call):
    try:
        answer = await call
    except grpc.aio.AioRpcError as error:
        equal(what, error.code(), code)
        assert error.details(), f"{what}: no word of why"
    else:
        raise AssertionError(f"{what}: {answer}, and {code} was expected")


async def a_story_is_planned(fleet: Fleet, completed):
    """From its creation to the tasks in Planning."""
    await refused("a story that nobody made", grpc.StatusCode.NOT_FOUND, fleet.transition("PO_REVIEW"))
    await fleet.publish("planning.story.created", {"story_id": STORY, "title": "Checkout", "created_by": "po-1"})
    await fleet.reaches("DRAFT")
    illegal = await fleet.transition("TESTING")
    assert not illegal.success and illegal.message, illegal
    equal("after an illegal move", await fleet.state(), "DRAFT")
    for state in ("PO_REVIEW", "READY_FOR_PLANNING"):
        moved = await fleet.transition(state)
        assert moved.success and moved.story.state == state, moved
    approved = {"plan_id": PLAN, "story_id": STORY, "approved_by": "po-1", "roles": ["DEVELOPER", "QA"]}
    await fleet.publish("planning.plan.approved", approved)
    [message] = await completed.fetch(1, timeout=PATIENCE)
    payload = json.loads(message.data)["payload"]
    await message.ack()
    equal("tasks of the derivation", payload["task_count"], 4)
    # Bare readers find the same at the top.
    equal("the mirror", json.loads(message.data)["plan_id"], PLAN)
    await fleet.reaches("PLANNED")


async def claims_and_pages(fleet: Fleet, task: str):
    """What an architect sees and takes of a task that waits for review."""

    async def listed():
        pending = await fleet.pending("architect")
        return task in [one.task_id for one in pending.tasks] and pending

    pending = await until(f"{task} among what waits for an architect", listed)
    one = next(one for one in pending.tasks if one.task_id == task)
    equal("its state", one.current_state, "pending_arch_review")
    equal("its commit", one.work.commit_sha, "4f2c9ab")
    assert one.waiting_since > 0 and one.story_id == STORY, one
    past = await fleet.pending("architect", limit=1, offset=1000)
    assert not past.tasks and past.total_count >= 1, past

    claim = workflow.ClaimTaskRequest(task_id=task, agent_id="architect-1", role="architect")
    for _ in range(2):
        claimed = await fleet.workflow.ClaimTask(claim)
        assert claimed.claimed and claimed.current_state == "arch_reviewing", claimed
    other = workflow.ClaimTaskRequest(task_id=task, agent_id="architect-2", role="architect")
    taken = await fleet.workflow.ClaimTask(other)
    assert not taken.claimed and taken.message, taken


async def errors(fleet: Fleet, task: str):
    code = grpc.StatusCode
    await refused("an unknown task", code.NOT_FOUND, fleet.at("nobody's"))
    await refused("an action on it", code.NOT_FOUND, fleet.asks("nobody's", "COMMIT_CODE", "developer"))
    await refused("an unknown role", code.INVALID_ARGUMENT, fleet.asks(task, "COMMIT_CODE", "gardener"))
    equal("another's action", (await fleet.asks(task, "APPROVE_DESIGN", "qa")).status, "rbac_violation")
    equal("out of order", (await fleet.asks(task, "APPROVE_TESTS", "qa")).status, "invalid_action")


async def a_task_with_rejections(fleet: Fleet, task: str):
    await fleet.works(task, "COMMIT_CODE", "developer")
    await fleet.task_reaches(task, "pending_arch_review")
    await errors(fleet, task)
    await claims_and_pages(fleet, task)
    short = await fleet.asks(task, "REJECT_DESIGN", "architect", "no")
    equal("a rejection without reasons", short.status, "rejected")
    # Sent twice with one key, as a client does that has lost the answer.
    answers = [await fleet.asks(task, "reject_design", "ARCHITECT", FEEDBACK, key="r-1") for _ in range(2)]
    equal("the answer to a repeat", answers[1], answers[0])
    equal("a rejection", (answers[0].status, answers[0].next_role), ("accepted", "developer"))
    equal("what is to be mended", (await fleet.at(task)).feedback, FEEDBACK)
    await fleet.works(task, "COMMIT_CODE", "dev")
    await fleet.task_reaches(task, "pending_arch_review")
    approved = await fleet.asks(task, "APPROVE_DESIGN", "arch")
    equal("an approval", (approved.status, approved.current_state), ("accepted", "pending_qa"))
    await fleet.works(task, "REJECT_TESTS", "qa", FEEDBACK)
    await fleet.task_reaches(task, "qa_failed")
    await fleet.works(task, "REVISE_CODE", "developer")
    await fleet.task_reaches(task, "implementing")
    await straight(fleet, task)
    history = (await fleet.at(task)).history
    for before, after in zip(history, history[1:]):
        equal("a hop", after.from_state, before.to_state)
    equal("design rejections", sum(hop.action == "reject_design" for hop in history), 1)


async def straight(fleet: Fleet, task: str):
    await fleet.works(task, "COMMIT_CODE", "developer")
    await fleet.task_reaches(task, "pending_arch_review")
    equal("design", (await fleet.asks(task, "APPROVE_DESIGN", "architect")).status, "accepted")
    await fleet.works(task, "APPROVE_TESTS", "qa")
    await fleet.task_reaches(task, "pending_po_approval")
    last = await fleet.asks(task, "APPROVE_STORY", "po")
    assert last.workflow_completed and last.current_state == "done", last


async def a_task_that_is_cancelled(fleet: Fleet, task: str):
    dropped = await fleet.asks(task, "DISCARD_TASK", "po")
    assert dropped.status == "accepted" and dropped.workflow_completed, dropped


async def a_task_that_is_tried_again(fleet: Fleet, task: str):
    await fleet.works(task, "COMMIT_CODE", "developer")
    await fleet.task_reaches(task, "pending_arch_review")
    await fleet.works(task, "RETRY", "system")

    async def again():
        return (await fleet.at(task)).retry_count == 1

    await until("the retry", again)
    await straight(fleet, task)


async def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--nats", required=True)
    arguments.add_argument("--grpc", required=True)
    options = arguments.parse_args()
    client = await nats.connect(options.nats)
    async with grpc.aio.insecure_channel(options.grpc) as channel:
        fleet = Fleet(client, channel)
        completed = await fleet.jetstream.pull_subscribe("task.derivation.completed", "planning-python")
        assigned = await fleet.jetstream.pull_subscribe("workflow.task.assigned", "orchestrator-python")
        through = await fleet.jetstream.pull_subscribe("workflow.story.tasks_completed", "story-python")
        await a_story_is_planned(fleet, completed)
        tasks = []
        while len(tasks) < 4:
            for message in await assigned.fetch(4 - len(tasks), timeout=PATIENCE):
                payload = json.loads(message.data)["payload"]
                equal("a first assignment", (payload["role"], payload["action"]), ("developer", "IMPLEMENT_FEATURE"))
                tasks.append(payload["task_id"])
                await message.ack()
        moved = await fleet.transition("READY_FOR_EXECUTION")
        assert moved.success, moved
        ways = (a_task_with_rejections, a_task_that_is_cancelled, a_task_that_is_tried_again, straight)
        await asyncio.gather(*(way(fleet, task) for way, task in zip(ways, tasks)))
        [message] = await through.fetch(1, timeout=PATIENCE)
        payload = json.loads(message.data)["payload"]
        equal("the story's end", (payload["task_count"], payload["cancelled_count"]), (4, 1))
        await message.ack()
        await fleet.reaches("TESTING")

        async def counted():
            stats = await fleet.workflow.GetStats(workflow.GetStatsRequest(story_id=STORY))
            # Cancelled is over, too.
            return stats.tasks_completed == 4 and stats

        stats = await until("the figures", counted)
        equal("rejections", stats.total_rejections, 2)
        equal("states", dict(stats.tasks_by_state), {"done": 3, "cancelled": 1})
        print(json.dumps({"story": await fleet.state(), "tasks": len(tasks)}))
    await client.close()


if __name__ == "__main__":
    asyncio.run(main())
