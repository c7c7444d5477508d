"""The page of the REST API, under the site's content security policy."""


def test_the_reference_lists_every_call_and_tries_one(site, person):
    page = person("anna")
    page.goto(site[0] + "/api/v1/docs/")
    page.get_by_text("Show all queues with a summary of their dead letters").click()
    page.get_by_role("button", name="Try it out").click()
    page.get_by_role("button", name="Execute").click()

    page.locator(".live-responses-table .response-col_status", has_text="200").first.wait_for()
    assert page.locator(".opblock").count() > 40
