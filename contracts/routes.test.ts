import { expect, test } from "vitest";
import { RouterAdminDefinition, RouterDefinition } from "./gen/beamline/flow/v1/flow.ts";
import { MemoryServiceDefinition } from "./gen/aios/memory.ts";
import type { Handlers } from "./handlers.ts";
import { routeOf, routes, routesOf, services, snake } from "./routes.ts";

test("every method of every service has a route of its own", () => {
  expect(services.length).toBe(10);
  expect(routes.length).toBe(services.flatMap((service) => Object.values(service.methods)).length);
  for (const key of ["path", "subject"] as const)
    expect(new Set(routes.map((route) => route[key])).size).toBe(routes.length);
});

test("subjects are package and method in snake_case, versioned", () => {
  expect(routeOf(MemoryServiceDefinition, MemoryServiceDefinition.methods.pushEvent)).toMatchObject({
    path: "/aios.memory.MemoryService/PushEvent",
    subject: "aios.memory.v1.push_event",
    kind: "request",
    worker: "memory",
    dialect: "aios",
  });
});

test.each([
  ["/beamline.flow.v1.Router/Decide", "beamline.router.v1.decide", "request"],
  ["/beamline.flow.v1.Router/GetDecision", "beamline.router.v1.get_decision", "request"],
  ["/beamline.flow.v1.Router/GetBackpressureStatus", "beamline.router.v1.status.backpressure", "request"],
  ["/beamline.flow.v1.RouterAdmin/GetExtensionHealth", "beamline.router.v1.admin.get_extension_health", "request"],
  ["/beamline.provider.v1.Provider/Invoke", "beamline.provider.v1.invoke", "request"],
  ["/beamline.provider.v1.Provider/InvokeStream", "beamline.provider.v1.invoke.stream", "stream"],
  ["/aios.api_gateway.ApiGateway/StreamInfer", "aios.api_gateway.v1.stream_infer", "stream"],
  ["/openwop.v1.Engine/CreateRun", "openwop.v1.create_run", "request"],
  ["/openwop.v1.Engine/StreamRunEvents", "openwop.v1.stream_run_events", "events"],
])("what a contract fixes: %s is %s", (path, subject, kind) => {
  expect(routes.find((route) => route.path === path)).toMatchObject({ subject, kind });
});

test("the tenant's place in a request is known where it has one", () => {
  expect(routesOf(RouterDefinition).decide.tenantField).toBe("message.tenant_id");
  expect(routesOf(RouterAdminDefinition).upsertPolicy.tenantField).toBe("tenant_id");
  expect(routesOf(MemoryServiceDefinition).pushEvent.tenantField).toBeUndefined();
});

test("snake_case keeps acronyms together", () => {
  expect(["PushEvent", "GetAIStatus", "CreateRun", "ListTools2"].map(snake)).toEqual([
    "push_event",
    "get_ai_status",
    "create_run",
    "list_tools2",
  ]);
});

test("a missing handler does not compile", () => {
  const decide = (): Promise<{ provider_id: string }> => Promise.resolve({ provider_id: "x" });
  // @ts-expect-error: the other methods of the service are missing
  const partial: Handlers<typeof RouterDefinition> = { decide };
  expect(Object.keys(partial)).toEqual(["decide"]); // the type check is the test; this one keeps the line alive
});
