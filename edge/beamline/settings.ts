/** Settings of BeamLine's REST gateway; the limits are the contract's (BeamLine, REST gateway). */
import { bool, durationMs, int } from "../../runtime/setting.ts";

const most = 1_000_000_000;

export const restSettings = {
  GATEWAY_RATE_LIMIT_TTL_SECONDS: int(60, "Window of the REST limits, in seconds.", { min: 1, max: 86_400 }),
  GATEWAY_RATE_LIMIT_DECIDE: int(50, "Decisions a caller may ask for over REST per window; 0 for no limit.", {
    min: 0,
    max: most,
  }),
  GATEWAY_RATE_LIMIT_MESSAGES: int(100, "Messages a caller may send over REST per window; 0 for no limit.", {
    min: 0,
    max: most,
  }),
  GATEWAY_RATE_LIMIT_REGISTRY: int(200, "Calls of the block registry of a caller per window; 0 for no limit.", {
    min: 0,
    max: most,
  }),
  IDEMPOTENCY_TTL_MS: durationMs(
    300_000,
    "How long an answer is given again to a REST request with the same assignment_id, ack_id or usage_id.",
    { min: 1_000, max: 3_600_000 },
  ),
  GATEWAY_ABUSE_DETECTION: bool(false, "Whether REST callers that behave like abuse are refused for five minutes."),
  GATEWAY_RATE_LIMIT_GLOBAL: int(1_000, "REST requests of a caller per window, all routes together; 0 for no limit.", {
    min: 0,
    max: most,
  }),
};
