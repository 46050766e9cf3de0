/** placeholder replaced below */
export class Webhooks {
  static async open(_options: object): Promise<Webhooks> {
    return new Webhooks();
  }
  async stop(_deadline: number): Promise<void> {}
}
