/** What tells test keys from live ones (OpenWOP, credentials; discovery, `testing.testKeyPrefix`). */

/** How a test key begins. */
export const TEST_KEY_PREFIX = "hk_test_";

/** Scope the edge gives to test keys and to no other: mock providers and forced engine versions are for those alone. */
export const TEST_SCOPE = "openwop:test";
