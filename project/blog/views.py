"""The pages of the live blog.

Every form is a plain POST that ends in a redirect, so that all of it works without JavaScript. The views save and
delete, and the feeds in `livefeeds.py` do the rest; one thing that is no row of any table is published here: an alert.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_POST

from livefeed import publish
from project.blog.forms import ApplauseForm, EntryForm, ReadingForm
from project.blog.models import Entry, Notice, Reading, Section

View = Callable[..., HttpResponse]


def staff_only(view: View) -> View:
    """Send strangers to the login page; refuse those who are signed in but do not belong to the staff."""

    @login_required
    @wraps(view)
    def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if not request.user.is_staff:
            raise PermissionDenied("Only the staff may see this page.")
        return view(request, *args, **kwargs)

    return guarded


def home(request: HttpRequest) -> HttpResponse:
    """Show all published entries, and how high the water stands."""
    return render(request, "blog/home.html", {"form": _blank_form(request), "reading": Reading.objects.first()})


def section(request: HttpRequest, slug: str) -> HttpResponse:
    """Show the published entries of one section."""
    section = get_object_or_404(Section, slug=slug)
    form = _blank_form(request, section=section.pk)
    return render(request, "blog/section.html", {"section": section, "topic": f"blog.entry:{slug}", "form": form})


def entry(request: HttpRequest, pk: int) -> HttpResponse:
    """Show one published entry."""
    entry = get_object_or_404(Entry.objects.published(), pk=pk)
    return render(request, "blog/entry.html", {"entry": entry, "topic": f"blog.entry:id:{pk}"})


@staff_only
def desk(request: HttpRequest) -> HttpResponse:
    """Show the drafts beside what is published."""
    return render(request, "blog/desk.html", {"form": _blank_form(request), "gauge": ReadingForm()})


@staff_only
@require_POST
def write(request: HttpRequest) -> HttpResponse:
    """Save a new entry, published or as a draft, and go back to where it was written."""
    form = EntryForm(request.POST, instance=Entry(author=request.user))
    if not form.is_valid():
        return render(request, "blog/write.html", {"form": form, "next": _next(request)}, status=422)
    with transaction.atomic():
        _alert(form.save())
    return redirect(_next(request))


@staff_only
@require_POST
def report(request: HttpRequest) -> HttpResponse:
    """Save a reading of the tide gauge."""
    form = ReadingForm(request.POST)
    if not form.is_valid():
        return render(request, "blog/desk.html", {"form": _blank_form(request), "gauge": form}, status=422)
    form.save()
    return redirect(_next(request))


@staff_only
def edit(request: HttpRequest, pk: int) -> HttpResponse:
    """Change an entry, publish it or take it back to the desk."""
    entry = get_object_or_404(Entry, pk=pk)
    stood_out = entry.is_published and entry.pinned
    form = EntryForm(request.POST or None, instance=entry)
    if request.method == "POST" and form.is_valid():
        with transaction.atomic():
            form.save()
            if not stood_out:
                _alert(entry)
        return redirect(entry if entry.is_published else "blog:desk")
    status = 422 if form.errors else 200
    return render(request, "blog/edit.html", {"form": form, "entry": entry}, status=status)


@staff_only
@require_POST
def delete(request: HttpRequest, pk: int) -> HttpResponse:
    """Delete an entry for good."""
    get_object_or_404(Entry, pk=pk).delete()
    return redirect("blog:desk")


@require_POST
def applaud(request: HttpRequest) -> HttpResponse:
    """Count the applause for an entry, and tell its author the first time that this reader applauds."""
    form = ApplauseForm(request.POST)
    if not form.is_valid():
        raise Http404("There is no such entry.")
    entry = form.cleaned_data["entry"]
    with transaction.atomic():
        entry.applaud()
        if request.user != entry.author and _is_first_applause(request, entry):
            who = request.user.get_username() if request.user.is_authenticated else "A reader"
            Notice.objects.create(recipient=entry.author, entry=entry, text=f"{who} applauded “{entry.title}”")
    return redirect(_next(request))


@login_required
def notices(request: HttpRequest) -> HttpResponse:
    """Show the notices to this user; a POST clears them."""
    if request.method == "POST":
        request.user.notices.all().delete()
        return redirect(_next(request))
    return render(request, "blog/notices.html")


def _alert(entry: Entry) -> None:
    """Tell everybody of an entry that is kept at the top."""
    if entry.is_published and entry.pinned:
        publish("blog.alert", {"text": entry.title, "url": entry.get_absolute_url()}, type="alert")


def _blank_form(request: HttpRequest, **initial: Any) -> EntryForm | None:
    """Return the form that only the staff sees."""
    return EntryForm(initial=initial) if request.user.is_staff else None


def _is_first_applause(request: HttpRequest, entry: Entry) -> bool:
    """Tell whether this visitor has not applauded the entry before, and remember that they have now."""
    applauded = request.session.get("applauded", [])
    if entry.pk in applauded:
        return False
    request.session["applauded"] = [*applauded, entry.pk][-100:]
    return True


def _next(request: HttpRequest) -> str:
    """Return the page of this site that the form came from."""
    target = request.POST.get("next", "")
    safe = url_has_allowed_host_and_scheme(target, {request.get_host()}, require_https=request.is_secure())
    return target if safe else "blog:home"
