"""The operator's page: a site's operator checks a plan, contributes and downloads, in a browser.

    browser  --  plan, form  -->  server  --  jobs  -->  work
    browser  <--  state, as JSON  --  server  <--  work

`server` listens on this machine alone and answers only who knows its token. `work` carries out the
same steps as `collabdm check` and `collabdm contribute`, in the main thread. `form` has the fields
of the page, and `page.html` is the page.
"""
