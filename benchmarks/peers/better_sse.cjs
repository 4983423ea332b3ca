// better-sse under Express, as its documentation shows it: a channel that sessions register with.
const express = require("express");
const { createChannel, createSession } = require("better-sse");

const app = express();
const channel = createChannel();

app.get("/stream", async (request, response) => {
  const session = await createSession(request, response);
  channel.register(session);
  session.push({ hello: true });
});

app.post("/publish", express.json(), (request, response) => {
  channel.broadcast(request.body);
  response.status(204).end();
});

const server = app.listen(Number(process.argv[2]), "0.0.0.0", 4096);
server.requestTimeout = 0;
