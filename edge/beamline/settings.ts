/** Settings of BeamLine's REST gateway; the limits are the contract's (BeamLine, REST gateway). */
import { int } from "../../runtime/setting.ts";

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
  GATEWAY_RATE_LIMIT_GLOBAL: int(1_000, "REST requests of a caller per window, all routes together; 0 for no limit.", {
    min: 0,
    max: most,
  }),
};
