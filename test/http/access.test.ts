import { beforeAll, expect, test } from "vitest";
import { networkOf } from "../../src/http/access.ts";
import { useDatabase } from "../support/engine.ts";
import { type Caller, callerOf, createApi, recorder } from "./caller.ts";

const file = useDatabase();
let call: Caller;
beforeAll(async () => {
  const mill = await file.open();
  call = callerOf(createApi(mill, { log: recorder() }));
  return () => mill.close();
});

test.each([
  ["IPv4 loopback", {}],
  ["anything in 127/8", { from: "127.8.9.10", headers: { host: "127.0.0.1:9000" } }],
  ["IPv6 loopback", { from: "::1", headers: { host: "[::1]:3003" } }],
  ["IPv4 loopback on an IPv6 socket", { from: "::ffff:127.0.0.1", headers: { host: "LOCALHOST" } }],
  ["our own page", { headers: { origin: "http://localhost:3003", "sec-fetch-site": "same-origin" } }],
  ["an address typed into a browser", { headers: { "sec-fetch-site": "none" } }],
])("%s is trusted without credentials", async (_, from) => {
  expect((await call("/jobs", from)).status).toBe(200);
});

test.each([
  ["another machine", { from: "192.0.2.4" }],
  ["another machine that says it is localhost", { from: "::ffff:192.0.2.4" }],
  ["a call without a socket", { from: undefined }],
  ["a name that was made to point here", { headers: { host: "rebound.example:3003" } }],
  ["a name that only begins like ours", { headers: { host: "localhost.evil.example" } }],
  ["a name that only begins like an address of ours", { headers: { host: "127.0.0.1.evil.example" } }],
  ["an empty Host", { headers: { host: "" } }],
  ["a page of another site", { headers: { "sec-fetch-site": "cross-site" } }],
  ["a page of another port, by a link", { headers: { "sec-fetch-site": "same-site" } }],
  [
    "a page of another port, by a script",
    { headers: { origin: "http://localhost:5173", "sec-fetch-site": "same-site" } },
  ],
  ["a page of another origin, in an old browser", { headers: { origin: "http://evil.example" } }],
  ["a page without an origin", { headers: { origin: "null" } }],
])("%s is not trusted", async (_, from) => {
  const { status, headers, body } = await call("/jobs", from);
  expect(status).toBe(401);
  expect(headers.get("www-authenticate")).toContain("Bearer");
  expect(body).toMatchObject({ code: "UNAUTHORIZED", detail: expect.stringContaining("only this machine is trusted") });
});

test.each([
  "X-Forwarded-For",
  "X-Forwarded-Host",
  "X-Forwarded-Proto",
  "X-Forwarded-Port",
  "Forwarded",
  "Via",
  "X-Real-IP",
  "X-Client-IP",
  "X-Cluster-Client-IP",
  "CF-Connecting-IP",
  "True-Client-IP",
  "Fastly-Client-IP",
])("a proxy on this machine that sets %s is not trusted, for whomever", async (name) => {
  const { status, body } = await call("/jobs", { headers: { [name]: "203.0.113.7" } });
  expect(status).toBe(401);
  expect(body["detail"]).toContain("passed on by a proxy");
});

test.each([
  ["GET", "/"],
  ["GET", "/health/test"],
  ["GET", "/dlq"],
  ["GET", "/api/queue/stats"],
  ["POST", "/jobs"],
  ["POST", "/api/queue/pause-all"],
  ["DELETE", "/jobs/01890000-0000-7000-8000-000000000000"],
  ["GET", "/nowhere"],
])("%s %s asks who is there before anything else", async (method, path) => {
  expect((await call(path, { method, from: "192.0.2.4" })).status).toBe(401);
});

test.each([
  ["192.0.2.4", "192.0.2.4"],
  ["2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"],
  ["2001:db8:1:2::", "2001:db8:1:2::/64"],
  ["2001:0DB8::1", "2001:db8:0:0::/64"],
  ["::1", "0:0:0:0::/64"],
  ["fe80::1%eth0", "fe80:0:0:0::/64"],
  ["64:ff9b::192.0.2.33", "64:ff9b:0:0::/64"],
  [undefined, "nowhere"],
])("callers without a name at %s are counted as %s", (address, network) => {
  expect(networkOf(address)).toBe(network);
});
