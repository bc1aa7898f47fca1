/** What a person sees who is not signed in. */
export function SignIn() {
  return (
    <main class="sign">
      <h1>livesnap</h1>
      <p>You are not signed in. On the host, run:</p>
      <div class="empty">
        <pre>livesnap open</pre>
      </div>
      <p class="quiet">
        It opens this page with a code that can be used once. A session lasts 12 hours, in this tab.
      </p>
    </main>
  );
}
