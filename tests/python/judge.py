"""A scoring stage of somebody else's, in Python: the shorter proposal is the better one. Prints where it listens, and serves until it
is ended.

    python judge.py
"""

import asyncio
import json

import grpc
import stubs

stubs.load("fleet/orchestrator/v1/orchestrator.proto")
scoring, scoring_grpc = stubs.load("cofferdam/council/v1/scoring.proto")


class Judge(scoring_grpc.ScoringServiceServicer):
    async def Score(self, request, context):
        longest = max(len(proposal.content) for proposal in request.proposals) or 1
        judged = [scoring.Judged(score=1 - len(proposal.content) / longest) for proposal in request.proposals]
        return scoring.ScoreResponse(judged=judged)

    async def Select(self, request, context):
        return scoring.SelectResponse(index=0, reason="the shortest")


async def main():
    server = grpc.aio.server()
    scoring_grpc.add_ScoringServiceServicer_to_server(Judge(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(json.dumps({"listen": f"127.0.0.1:{port}"}), flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main())
