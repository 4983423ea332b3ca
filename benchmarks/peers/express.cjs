// Express, as everybody writes it: a set of responses, and a write to each.
const express = require("express");

const app = express();
const streams = new Set();

app.get("/stream", (request, response) => {
  response.writeHead(200, { "Content-Type": "text/event-stream", "Cache-Control": "no-store" });
  response.write(": hello\n\n");
  streams.add(response);
  request.on("close", () => streams.delete(response));
});

app.post("/publish", express.text({ type: "*/*" }), (request, response) => {
  const event = `data: ${request.body}\n\n`;
  for (const stream of streams) stream.write(event);
  response.status(204).end();
});

const server = app.listen(Number(process.argv[2]), "0.0.0.0", 4096);
server.requestTimeout = 0;
