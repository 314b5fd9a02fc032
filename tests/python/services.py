"""Planning, Context and the Ray Executor as a Python fleet serves them: grpcio servers on ports of their own, and what they
publish on NATS by nats-py. Prints its addresses as one line of JSON, then serves until it is killed.

    python services.py --nats nats://127.0.0.1:4222
"""

import argparse
import asyncio
import json
import sys
import uuid
from datetime import UTC, datetime

import grpc
import nats
import stubs

derivation, derivation_grpc = stubs.load("fleet/task_derivation/v1/task_derivation.proto")
context, context_grpc = stubs.load("fleet/context/v1/context.proto")
ray, ray_grpc = stubs.load("fleet/ray_executor/v1/ray_executor.proto")

# What the model says at its second try; at the first it only talks.
TASKS = """Here is the plan, as you asked.

TASK_ID: TASK-001
TITLE: Create the orders table
DESCRIPTION: A migration with an index.
It has to run twice without harm.
ROLE: DEV
ESTIMATED_HOURS: 4
PRIORITY: 1
KEYWORDS: orders, schema
---
TASK_ID: TASK-002
TITLE: Serve orders over HTTP
DESCRIPTION: GET and POST.
ROLE: DEVELOPER
ESTIMATED_HOURS: 6
PRIORITY: 2
DEPENDS_ON: TASK-001
---
TASK_ID: TASK-003
TITLE: Test the checkout
DESCRIPTION: End to end.
ROLE: QA
ESTIMATED_HOURS: 3
PRIORITY: 3
DEPENDS_ON: TASK-002
---
TASK_ID: TASK-004
TITLE: Write the manual
DESCRIPTION: For people.
ROLE: DEV
ESTIMATED_HOURS: 2
PRIORITY: 5
DEPENDS_ON: none
"""


def now() -> str:
    # As the fleet's Planning writes it: not quite RFC 3339.
    return datetime.now(UTC).isoformat() + "Z"


class Planning(derivation_grpc.TaskDerivationPlanningServiceServicer):
    def __init__(self, jetstream):
        self.jetstream = jetstream
        self.tasks = {}

    async def GetPlanContext(self, request, _):
        plan = derivation.PlanContext(
            plan_id=request.plan_id,
            story_id=request.plan_id.replace("plan", "story"),
            title="Checkout",
            description="Customers order and pay.",
            acceptance_criteria=["an order is stored once"],
            roles=["DEVELOPER", "QA"],
        )
        return derivation.GetPlanContextResponse(plan_context=plan)

    async def CreateTasks(self, request, _):
        ids = []
        for command in request.commands:
            task_id = f"task-{uuid.uuid4()}"
            ids.append(task_id)
            self.tasks[task_id] = command
        # Told after the answer, as the fleet's outbox does it.
        asyncio.create_task(self.tell(ids))
        return derivation.CreateTasksResponse(task_ids=ids)

    async def tell(self, ids):
        for task_id in ids:
            command = self.tasks[task_id]
            created = {
                "task_id": task_id,
                "story_id": command.story_id,
                "plan_id": command.plan_id,
                "title": command.title,
                "description": command.description,
                "assigned_to": command.assigned_role,
                "estimated_hours": command.estimated_hours,
                "priority": command.priority,
                "created_at": now(),
            }
            await self.jetstream.publish("planning.task.created", json.dumps(created).encode())

    async def ListStoryTasks(self, request, _):
        tasks = [
            derivation.TaskSummary(
                task_id=task_id, title=c.title, priority=c.priority, assigned_role=c.assigned_role
            )
            for task_id, c in self.tasks.items()
            if c.story_id == request.story_id
        ]
        return derivation.ListStoryTasksResponse(tasks=tasks)

    async def SaveTaskDependencies(self, request, rpc):
        for edge in request.edges:
            if edge.from_task_id not in self.tasks or edge.to_task_id not in self.tasks:
                await rpc.abort(grpc.StatusCode.NOT_FOUND, f"no such tasks: {edge}")
        return derivation.SaveTaskDependenciesResponse(success=True)


class Context(context_grpc.ContextServiceServicer):
    async def GetContext(self, request, _):
        return context.GetContextResponse(context=f"what {request.role} should know", token_count=5)


class RayExecutor(ray_grpc.RayExecutorServiceServicer):
    def __init__(self, jetstream):
        self.jetstream = jetstream
        self.asked = 0

    async def ExecuteDeliberation(self, request, rpc):
        if not request.task_id or not request.agents:
            await rpc.abort(grpc.StatusCode.INVALID_ARGUMENT, "a task_id and an agent are needed")
        self.asked += 1
        text = "I would begin with the orders, then do the rest." if self.asked == 1 else TASKS
        asyncio.create_task(self.answer(request, text))
        return ray.ExecuteDeliberationResponse(
            task_id=request.task_id, deliberation_id=f"deliberation-{self.asked}", status="accepted"
        )

    async def answer(self, request, text):
        agent, constraints = request.agents[0], request.constraints
        completed = {
            "task_id": request.task_id,
            "agent_id": agent.id,
            "role": agent.role,
            "status": "completed",
            "duration_ms": 12,
            "timestamp": now(),
            "proposal": {"content": text, "author_id": agent.id, "author_role": agent.role, "tokens": 200},
            "operations": [],
            "artifacts": {},
            "success": True,
            "num_agents": len(request.agents),
            "constraints": {
                "story_id": constraints.story_id,
                "plan_id": constraints.plan_id,
                "metadata": dict(constraints.metadata),
            },
        }
        await self.jetstream.publish("agent.response.completed", json.dumps(completed).encode())


async def serve(add, servicer) -> tuple[grpc.aio.Server, str]:
    server = grpc.aio.server()
    add(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    return server, f"127.0.0.1:{port}"


async def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--nats", required=True)
    client = await nats.connect(arguments.parse_args().nats)
    jetstream = client.jetstream()
    planning = await serve(
        derivation_grpc.add_TaskDerivationPlanningServiceServicer_to_server, Planning(jetstream)
    )
    knowledge = await serve(context_grpc.add_ContextServiceServicer_to_server, Context())
    executor = await serve(ray_grpc.add_RayExecutorServiceServicer_to_server, RayExecutor(jetstream))
    print(json.dumps({"planning": planning[1], "context": knowledge[1], "ray": executor[1]}))
    sys.stdout.flush()
    await asyncio.gather(*(server.wait_for_termination() for server, _ in (planning, knowledge, executor)))


if __name__ == "__main__":
    asyncio.run(main())
