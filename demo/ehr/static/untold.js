/** What this window shows and the others were not told of, also after it was loaded again. */

const KEPT = "ehr.untold";

export class Untold {
  /** The name of the event that did not get through; "" where the others know all. */
  event = "";
  /** Why, as part of a sentence. */
  why = "";
  /** The id of the patient who is shown, "" for nobody. */
  patient = "";
  /** Tells the others; null after a reload. @type {((client: object) => Promise<unknown>) | null} */
  tell = null;
  /** Whether the client tells it again by itself. */
  isTried = false;
  /** Whether the window was loaded again since: the client then knows nothing of it. */
  isHeld = false;
  #user;

  /** @param {string} user whose window it is: nobody else's is taken up again */
  constructor(user) {
    this.#user = user;
    const kept = JSON.parse(sessionStorage.getItem(KEPT) ?? "null");
    if (kept?.user !== user) return;
    const { event, why, patient } = kept;
    Object.assign(this, { event, why, patient, isHeld: true });
  }

  /** @param {Pick<Untold, "event" | "why" | "patient" | "tell" | "isTried">} failure */
  failed({ event, why, patient, tell, isTried }) {
    Object.assign(this, { event, why, patient, tell, isTried });
    sessionStorage.setItem(KEPT, JSON.stringify({ user: this.#user, event, why, patient }));
  }

  /** The others know, or it is given up. */
  settled() {
    Object.assign(this, { event: "", why: "", tell: null, patient: "", isTried: false, isHeld: false });
    sessionStorage.removeItem(KEPT);
  }
}

/** The status of the header says so, and what can be done. */
export function showUntold(app, desk) {
  const tell = { label: () => app.t("tell-others"), run: () => desk.tellOthers(), test: "tell-others" };
  const follow = { label: () => app.t("follow-others"), run: () => desk.followOthers(), test: "follow-others" };
  app.syncStatus.reworded = (reason) => {
    const [key, said] = [`own.${reason}`, app.t(`own.${reason}`)];
    return said === key ? "" : said;
  };
  const render = () => {
    const { event, why } = desk.untold;
    app.syncStatus.untold = event ? { event, why } : null;
    app.syncStatus.actions = event ? [tell, follow] : [];
  };
  desk.addEventListener("change", render);
  render();
}
