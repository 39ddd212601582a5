// Passes requests on to a server with a key added, for clients that cannot send one: the conformance suite.
// node with_key.mjs SERVER_URL [PORT], with the key in OUTPOST_API_KEY; without a port, any that is free. Prints where
// it listens, and ends with its standard input.
import http from "node:http";

const [target, wanted = "0"] = process.argv.slice(2);
const key = process.env.OUTPOST_API_KEY;
const { hostname, port } = new URL(target);
const server = http.createServer((request, response) => {
  const headers = { ...request.headers, "x-api-key": key };
  const { method, url: path } = request;
  const onward = http.request({ hostname, port, method, path, headers }, (answer) => {
    response.writeHead(answer.statusCode, answer.headers);
    answer.pipe(response);
  });
  onward.on("error", () => response.destroy());
  response.on("close", () => onward.destroy());
  request.pipe(onward);
});
server.listen(Number(wanted), "127.0.0.1", () => console.log(`http://127.0.0.1:${server.address().port}`));
process.stdin.on("end", () => process.exit()).resume();
