from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.template import RequestContext, Template

from .models import Article


def save(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(Article.objects.create(title=request.GET["title"]).pk))


async def asave(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str((await Article.objects.acreate(title=request.GET["title"])).pk))


def page(request: HttpRequest) -> HttpResponse:
    return render(request, "testapp/page.html", {"topic": request.GET["topic"]})


def url(request: HttpRequest) -> HttpResponse:
    """A page that has nothing but the URL of a stream of these topics."""
    tags = " ".join(f'"{topic}"' for topic in request.GET.getlist("topic"))
    template = Template("{% load livefeed %}{% livefeed_url " + tags + " %}")
    return HttpResponse(template.render(RequestContext(request)))
