// Passes requests on to a server with a key added, for clients that cannot send one: the conformance suite.
// node with_key.mjs SERVER_URL KEY_FILE PORT
import { readFileSync } from "node:fs";
import http from "node:http";

const [target, keyFile, port] = process.argv.slice(2);
const key = readFileSync(keyFile, "utf8").trim();
const { hostname, port: targetPort } = new URL(target);
http
  .createServer((request, response) => {
    const headers = { ...request.headers, "x-api-key": key };
    const { method, url: path } = request;
    const onward = http.request({ hostname, port: targetPort, method, path, headers }, (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      answer.pipe(response);
    });
    onward.on("error", () => response.destroy());
    request.pipe(onward);
  })
  .listen(Number(port), "127.0.0.1", () => console.log(`http://127.0.0.1:${port}`));
