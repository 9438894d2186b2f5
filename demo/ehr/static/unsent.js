/** The own event that the others were not told of, also after a reload. */

const KEPT = "ehr.unsent";

export class Unsent {
  /** The name of the event; "" where the others know all. */
  event = "";
  /** The reason, as a part of a sentence. */
  why = "";
  /** The id of the shown patient, "" for none. */
  patient = "";
  /** Publishes the event again; null after a reload. @type {((client: object) => Promise<unknown>) | null} */
  tell = null;
  /** Whether the client retries the event by itself. */
  isTried = false;
  /** Whether the window was reloaded since: the client then does not know the event. */
  isHeld = false;
  #user;

  /** @param {string} user of the window: entries of other users are ignored */
  constructor(user) {
    this.#user = user;
    const kept = JSON.parse(sessionStorage.getItem(KEPT) ?? "null");
    if (kept?.user !== user) return;
    const { event, why, patient } = kept;
    Object.assign(this, { event, why, patient, isHeld: true });
  }

  /** @param {Pick<Unsent, "event" | "why" | "patient" | "tell" | "isTried">} failure */
  failed({ event, why, patient, tell, isTried }) {
    Object.assign(this, { event, why, patient, tell, isTried });
    sessionStorage.setItem(KEPT, JSON.stringify({ user: this.#user, event, why, patient }));
  }

  /** The others know, or the event is given up. */
  settled() {
    Object.assign(this, { event: "", why: "", tell: null, patient: "", isTried: false, isHeld: false });
    sessionStorage.removeItem(KEPT);
  }
}

/** The header's status shows it, with the possible actions. */
export function showUnsent(app, desk) {
  const tell = { label: () => app.t("tell-others"), run: () => desk.tellOthers(), test: "tell-others" };
  const follow = { label: () => app.t("follow-others"), run: () => desk.followOthers(), test: "follow-others" };
  app.syncStatus.reworded = (reason) => {
    const [key, said] = [`own.${reason}`, app.t(`own.${reason}`)];
    return said === key ? "" : said;
  };
  const render = () => {
    const { event, why } = desk.unsent;
    app.syncStatus.unsent = event ? { event, why } : null;
    app.syncStatus.actions = event ? [tell, follow] : [];
  };
  desk.addEventListener("change", render);
  render();
}
