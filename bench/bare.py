"""What FastAPI and uvicorn cost alone: an endpoint that reads a JSON body and stores nothing."""

import socket

import uvicorn
from fastapi import FastAPI, Request

app = FastAPI(openapi_url=None)


@app.post("/send", status_code=202)
async def send(request: Request) -> dict[str, str]:
    await request.json()
    return {"id": "msg", "status": "queued"}


if __name__ == "__main__":
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    config = uvicorn.Config(app, http="httptools", log_level="error", access_log=False)
    uvicorn.Server(config).run([listener])
